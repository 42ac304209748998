//! Reviews of the caller itself: who am I, and may I. Everybody may everything.

use http::{Method, StatusCode};
use serde_json::json;

use super::body::decode;
use super::route::Address;
use super::{Answer, Received, respond};
use crate::discovery::REVIEWS;
use crate::error::ApiError;

pub(crate) fn is_review(address: &Address) -> bool {
    REVIEWS
        .iter()
        .any(|review| review.0 == address.group && review.3 == address.plural)
}

pub(crate) fn answer(address: &Address, received: &Received) -> Answer {
    if received.method != Method::POST {
        return Err(ApiError::MethodNotAllowed);
    }
    let mut review = decode(received)?;
    if !review.is_object() {
        return Err(ApiError::BadRequest("not a review".to_owned()));
    }
    review["status"] = if address.plural == "selfsubjectreviews" {
        json!({ "userInfo": { "username": received.user.name, "groups": received.user.groups } })
    } else {
        json!({ "allowed": true, "reason": "this server authorizes nothing" })
    };
    Ok(respond::json(StatusCode::CREATED, &review))
}
