//! What is said when a pod is attached: between container runtime and `warren-cni`, and between that and
//! `warren-agent`.
//!
//! - The runtime's side is the [CNI specification](https://www.cni.dev/docs/spec/), versions 0.3.0 to 1.1.0:
//!   [`NetConf`] comes in on the plugin's stdin, an [`AddResult`], [`VersionReply`] or [`CniError`] goes out.
//! - The agent's side is ours: one [`Request`] and one [`Reply`] per connection on a Unix stream socket, each one
//!   line of JSON ([`message`]).
//!
//! Names from outside are parsed once, here, into [`ContainerId`], [`IfName`], [`NetnsPath`] and [`NetworkName`];
//! inside, such a value can be used in a path or a kernel request without looking at it again.
//!
//! Pure: no clock, environment, file or socket.

mod conf;
mod conf_error;
mod error;
mod limits;
mod mac;
pub mod message;
mod names;
mod pod;
mod result;
mod version;

pub use conf::{DEFAULT_RUN_DIR, DEFAULT_TIMEOUT, NetConf, SOCKET_NAME};
pub use conf_error::ConfError;
pub use error::{CniError, ErrorCode};
pub use limits::MAX_CONF_BYTES;
pub use mac::{MacAddr, MacError};
pub use message::{Command, MAX_MESSAGE_BYTES, MESSAGE_VERSION, Outcome, Reply, Request, WireError};
pub use names::{AttachmentId, ContainerId, IfName, NameError, NetnsPath, NetworkName};
pub use pod::{PodError, PodRef};
pub use result::{
    AddResult, Dns, Interface, IpConfig, PrevInterface, PrevIp, PrevResult, ResultError, Route,
};
pub use version::{SpecVersion, UnsupportedVersion, VersionReply};
