//! The pods attached to this node and the addresses they hold.

mod contents;
mod interface;
mod label;
mod recovery;
mod shared;
mod store;

pub use self::contents::Record;
pub use self::interface::{host_interface, pod_mac};
pub use self::label::{Label, LabelError};
pub use self::recovery::RecoveryError;
pub use self::shared::{Busy, SharedAttachments};
pub use self::store::{AddError, AttachmentStore, StoreError};
