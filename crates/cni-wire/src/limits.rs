//! How long things may be.

/// The largest configuration that is read, in bytes.
pub const MAX_CONF_BYTES: usize = 1 << 20;

/// The longest timeout that may be configured, in seconds: ten minutes, well above what any runtime waits.
pub(crate) const MAX_TIMEOUT_SECONDS: u64 = 600;
/// The longest path of a Unix socket: `sun_path` without the final NUL (unix(7)).
pub(crate) const MAX_SOCKET_PATH_BYTES: usize = 107;
