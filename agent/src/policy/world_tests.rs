#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use warren_model::Node;

use super::*;

fn pod(name: &str, node: &str, address: &str) -> Arc<Pod> {
    Arc::new(Pod {
        name: PodName {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        },
        uid: name.to_owned(),
        labels: Labels::from_iter([("app", name)]),
        addresses: vec![address.parse().unwrap()],
        ports: Vec::new(),
        host_network: false,
        finished: false,
        node: Some(node.parse().unwrap()),
        since: Since::Created(0),
    })
}

fn attached(owner: &str, pod: Option<&str>, address: &str) -> Attached {
    let owner = Owner {
        container_id: owner.to_owned(),
        if_name: "eth0".to_owned(),
    };
    (owner, pod.map(str::to_owned), vec![address.parse().unwrap()])
}

fn addresses(world: &World) -> Vec<(String, Vec<String>)> {
    let texts = |pod: &Pod| pod.addresses.iter().map(ToString::to_string).collect();
    let pods = world.cluster().pods.iter();
    pods.map(|pod| (pod.name.to_string(), texts(pod))).collect()
}

fn expected(all: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let texts = |addresses: &[&str]| addresses.iter().map(|it| (*it).to_owned()).collect();
    all.iter()
        .map(|(name, addresses)| ((*name).to_owned(), texts(addresses)))
        .collect()
}

#[test]
fn this_nodes_pods_have_the_addresses_they_are_attached_with_and_others_what_the_api_says() {
    let mut world = World::new("here".parse().unwrap());
    let mut policy = PolicySnapshot {
        pods: vec![
            pod("a", "here", "10.0.1.9"),
            pod("b", "there", "10.0.2.2"),
            pod("c", "here", "10.0.1.3"),
        ],
        ..PolicySnapshot::default()
    };
    let update = |world: &mut World, policy: &PolicySnapshot, all: &[Attached]| {
        world.update(policy, &Snapshot::default(), all, &[]);
    };
    let of_a = attached("1", Some("shop/a"), "10.0.1.1");
    let recovered = attached("3", None, "10.0.1.3");
    let by_hand = attached("4", None, "10.0.1.4");
    let not_seen = attached("5", Some("shop/z"), "10.0.1.5");
    update(&mut world, &policy, &[of_a.clone(), recovered, by_hand, not_seen]);
    assert_eq!(
        addresses(&world),
        expected(&[
            ("shop/a", &["10.0.1.1"]),
            ("shop/b", &["10.0.2.2"]),
            ("shop/c", &["10.0.1.3"]),
            ("/4/eth0", &["10.0.1.4"]),
        ])
    );

    // What has not changed is taken over, what has is not, and nothing is left of what is gone.
    policy.pods.remove(2);
    policy.pods[1] = pod("b", "there", "10.0.2.8");
    policy.pods.insert(1, pod("aa", "there", "10.0.2.7"));
    update(&mut world, &policy, std::slice::from_ref(&of_a));
    let again = expected(&[
        ("shop/a", &["10.0.1.1"]),
        ("shop/aa", &["10.0.2.7"]),
        ("shop/b", &["10.0.2.8"]),
    ]);
    assert_eq!(addresses(&world), again);
    update(&mut world, &policy, &[of_a]);
    assert_eq!(addresses(&world), again);
    update(&mut world, &policy, &[]);
    assert_eq!(addresses(&world)[0], ("shop/a".to_owned(), Vec::new()));
}

#[test]
fn of_pods_with_the_same_address_the_one_that_is_attached_here_has_it() {
    let mut world = World::new("here".parse().unwrap());
    let aged = |name: &str, node: &str, created: i64| {
        let mut pod = Arc::unwrap_or_clone(pod(name, node, "10.0.1.1"));
        pod.since = Since::Created(created);
        Arc::new(pod)
    };
    let policy = PolicySnapshot {
        pods: vec![aged("a", "here", 2), aged("b", "here", 1), aged("c", "there", 3)],
        ..PolicySnapshot::default()
    };
    let since = |world: &World| -> Vec<(Since, bool)> {
        let pods = world.cluster().pods.iter();
        pods.map(|pod| (pod.since, pod.addresses.is_empty())).collect()
    };
    let update = |world: &mut World, all: &[Attached]| world.update(&policy, &Snapshot::default(), all, &[]);
    // Nobody's, as long as none is attached, but another node's word for its own.
    update(&mut world, &[]);
    let [older, younger, far] = [1, 2, 3].map(Since::Created);
    assert_eq!(since(&world), [(younger, true), (older, true), (far, false)]);
    update(&mut world, &[attached("1", Some("shop/b"), "10.0.1.1")]);
    assert_eq!(
        since(&world),
        [(younger, true), (Since::Attached, false), (far, false)]
    );
    // Of a record that does not say whose it is the API does: the younger one's.
    update(&mut world, &[attached("1", None, "10.0.1.1")]);
    assert_eq!(
        since(&world),
        [(Since::Attached, false), (older, true), (far, false)]
    );
}

#[test]
fn the_own_node_has_all_its_addresses_and_others_those_that_the_api_tells() {
    let node = |name: &str, address: &str| {
        let node = Node {
            name: name.parse().unwrap(),
            uid: name.to_owned(),
            created: 0,
            pod_cidrs: Vec::new(),
            internal_ips: vec![address.parse().unwrap()],
            announcement: None,
            ready: true,
        };
        (node.name.clone(), node)
    };
    let mesh = Snapshot {
        nodes: BTreeMap::from([node("here", "192.0.2.1"), node("there", "192.0.2.2")]),
        ..Snapshot::default()
    };
    let mut world = World::new("here".parse().unwrap());
    let own = ["127.0.0.1", "192.0.2.1", "10.0.1.1"].map(|it| it.parse().unwrap());
    world.update(&PolicySnapshot::default(), &mesh, &[], &own);
    let texts = |name: &str| -> Vec<String> {
        world.cluster().nodes[name]
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(texts("here"), ["192.0.2.1", "10.0.1.1"]);
    assert_eq!(texts("there"), ["192.0.2.2"]);
}
