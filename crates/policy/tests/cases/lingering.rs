//! Pods whose objects outlive them: their addresses are others' by then.

use std::net::IpAddr;

use warren_model::PodName;
use warren_policy::ruleset::EndpointName;
use warren_policy::{Compiler, Input, Since, compile};

use crate::world::World;

/// Of namespace x, b has come after a and has its addresses, while a's object is still there. What a may do, b may not.
fn world() -> World {
    let mut world = World::new()
        .kubernetes(
            "y",
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}, podSelector: {matchLabels: {pod: a}}}]}]}",
        )
        .kubernetes("x", "{podSelector: {matchLabels: {pod: a}}}")
        .kubernetes("z", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-81-tcp}]}]}");
    world.pod("x/a").since = Since::Created(100);
    let addresses = world.pod("x/a").addresses.clone();
    let b = world.pod("x/b");
    b.addresses = addresses;
    b.since = Since::Created(101);
    b.ports.clear();
    world
}

/// Which pods have that address.
fn holders(world: &World, address: IpAddr) -> Vec<String> {
    let rules = world.rules();
    let there = rules.by_address.get(&address).into_iter().flatten();
    let names = there.map(|position| match &rules.endpoints[*position].name {
        EndpointName::Pod(name) => name.to_string(),
        host @ EndpointName::Host(..) => host.to_string(),
    });
    names.collect()
}

#[test]
fn an_address_that_two_pods_claim_is_the_younger_ones() {
    let mut world = world();
    let address = world.address("x/a", 0);
    assert_eq!(holders(&world, address), ["x/b"]);
    assert!(
        !world.reaches("x/b", "y/a", "tcp/80"),
        "for a's labels do not count"
    );
    assert!(world.reaches("y/a", "x/b", "tcp/80"), "nor do a's policies");
    assert!(
        !world.reaches("z/a", "x/b", "tcp/81"),
        "nor do the names of a's ports"
    );
    // Whoever is attached to the node that asks is there, whatever the API says.
    world.pod("x/a").since = Since::Attached;
    assert_eq!(holders(&world, address), ["x/a"]);
    assert!(world.reaches("x/a", "y/a", "tcp/80"));
    assert!(!world.reaches("y/a", "x/a", "tcp/80"));
    // One that has ended claims nothing.
    world.pod("x/a").finished = true;
    assert_eq!(holders(&world, address), ["x/b"]);
}

#[test]
fn once_the_younger_one_is_gone_the_address_is_the_older_ones() {
    let mut world = world();
    let mut compiler = Compiler::default();
    let both = compiler.compile(&Input::new(&world.policies, &world.cluster));
    assert_eq!(both, compile(&Input::new(&world.policies, &world.cluster)));
    let is_b = |name: &PodName| name.to_string() == "x/b";
    world.cluster.pods.retain(|pod| !is_b(&pod.name));
    let one = compiler.compile(&Input::new(&world.policies, &world.cluster));
    assert_eq!(one, compile(&Input::new(&world.policies, &world.cluster)));
    assert!(world.reaches("x/a", "y/a", "tcp/80"));
}
