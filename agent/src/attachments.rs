//! The pods attached to this node and the addresses they hold.

mod shared;
mod store;

pub use self::shared::{Busy, SharedAttachments};
pub use self::store::{AddError, AttachmentStore, Record, StoreError};
