//! Cases by name: what policies say, in a small cluster, and who reaches whom then.

mod explanations;
mod kubernetes;
mod lingering;
mod warren;
mod world;
