//! The cases of the upstream NetworkPolicy documentation and conformance tests, by name.

mod conformance;
mod documentation;
mod edges;
