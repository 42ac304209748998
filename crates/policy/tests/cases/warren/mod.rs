//! GlobalNetworkPolicies, NetworkPolicies, network sets and host endpoints of Warren, as Calico's would behave.

mod examples;
mod hosts;
mod order;
mod refusals;
mod rules;
