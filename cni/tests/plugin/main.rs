//! The real `warren-cni`, called as a container runtime calls it, with a fake agent at the other end of its socket.

mod harness;
mod refusals;
mod trouble;
mod verbs;
