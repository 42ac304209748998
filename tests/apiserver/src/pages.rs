//! Lists that are read in parts: `limit` and `continue`.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::ApiError;

/// Of so many lists the rest is kept. The real server keeps it until its history is compacted, after five minutes.
const KEPT: usize = 32;

/// Lists of which a client has not read all, as they were when it began.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    kept: VecDeque<Listed>,
    begun: u64,
}

#[derive(Debug)]
struct Listed {
    number: u64,
    objects: Vec<Arc<Value>>,
    version: u64,
    /// With a selector the server does not count what remains.
    selected: bool,
}

/// A part of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Value>>,
    /// What the whole list is of.
    pub(crate) version: u64,
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    token: String,
    remaining: Option<usize>,
}

impl Pages {
    /// The first part of a list that has just been made; all of it without a limit.
    pub(crate) fn first(
        &mut self,
        objects: Vec<Arc<Value>>,
        version: u64,
        limit: Option<usize>,
        selected: bool,
    ) -> Page {
        let Some(limit) = limit.filter(|limit| *limit < objects.len()) else {
            return Page {
                objects,
                version,
                rest: None,
            };
        };
        self.begun += 1;
        let listed = Listed {
            number: self.begun,
            objects,
            version,
            selected,
        };
        let page = listed.part(0, Some(limit));
        self.kept.push_back(listed);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        page
    }

    /// The part that a token stands for. A client may ask for it again.
    pub(crate) fn following(&self, token: &str, limit: Option<usize>) -> Result<Page, ApiError> {
        let read = || {
            let (number, from) = token.split_once('-')?;
            Some((number.parse::<u64>().ok()?, from.parse::<usize>().ok()?))
        };
        let (number, from) = read().ok_or_else(|| {
            ApiError::BadRequest("continue key is not valid: it must be one from a list".to_owned())
        })?;
        let listed = self
            .kept
            .iter()
            .find(|it| it.number == number && from < it.objects.len());
        let listed = listed.ok_or_else(|| {
            let why = "The provided continue parameter is too old to display a consistent list result. \
                       You must start a new list without the continue parameter.";
            ApiError::Expired(why.to_owned())
        })?;
        Ok(listed.part(from, limit))
    }

    /// Forgets all that has not been read.
    pub(crate) fn expire(&mut self) {
        self.kept.clear();
    }
}

impl Listed {
    fn part(&self, from: usize, limit: Option<usize>) -> Page {
        let all = self.objects.len();
        let to = limit.map_or(all, |limit| all.min(from.saturating_add(limit)));
        let rest = (to < all).then(|| Rest {
            token: format!("{}-{to}", self.number),
            remaining: (!self.selected).then_some(all - to),
        });
        Page {
            objects: self.objects[from..to].to_vec(),
            version: self.version,
            rest,
        }
    }
}

impl Page {
    /// Says in a list made of this part where the next one is.
    pub(crate) fn mark(&self, list: &mut Value) {
        if let Some(rest) = &self.rest {
            list["metadata"]["continue"] = json!(rest.token);
            if let Some(remaining) = rest.remaining {
                list["metadata"]["remainingItemCount"] = json!(remaining);
            }
        }
    }
}
