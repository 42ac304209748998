//! Random policies, the same for the same seed, and what the nodes make of them.

use serde_json::{Value, json};
use warren_lab::Lab;

use crate::scene::{Kind, Object, QUICK, all_attempts, differences, scene};
use crate::shrink::smallest;
use crate::support::PATIENCE;

const NAMESPACES: [&str; 3] = ["east", "north", "west"];
/// How many sets of policies are tried, one after the other.
const CASES: u64 = 12;

/// A generator that gives the same numbers for the same seed (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(limit).unwrap()).unwrap()
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| make(self)).collect()
    }
}

/// Labels of the pod of that number; each namespace has one of each.
fn labels(number: usize) -> Value {
    let app = ["web", "db", "cache"][number];
    json!({"app": app, "tier": if number == 0 { "front" } else { "back" }})
}

fn label_selector(random: &mut Seeded) -> Value {
    random.one(&[
        json!({}),
        json!({"matchLabels": {"app": "web"}}),
        json!({"matchLabels": {"app": "db"}}),
        json!({"matchLabels": {"tier": "back"}}),
        json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}),
        json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
    ])
}

fn namespace_selector(random: &mut Seeded) -> Value {
    random.one(&[
        json!({}),
        json!({"matchLabels": {"kubernetes.io/metadata.name": "north"}}),
        json!({"matchExpressions": [{"key": "side", "operator": "In", "values": ["left"]}]}),
    ])
}

fn kubernetes_peer(random: &mut Seeded) -> Value {
    match random.below(4) {
        0 => json!({"podSelector": label_selector(random)}),
        1 => json!({"namespaceSelector": namespace_selector(random)}),
        2 => json!({"podSelector": label_selector(random), "namespaceSelector": namespace_selector(random)}),
        _ => random.one(&[
            json!({"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.2.0/24"]}}),
            json!({"ipBlock": {"cidr": "fd00:10:244:1::/64"}}),
        ]),
    }
}

fn kubernetes_port(random: &mut Seeded) -> Value {
    random.one(&[
        json!({"port": 80}),
        json!({"port": "redis"}),
        json!({"port": "dns", "protocol": "UDP"}),
        json!({"protocol": "UDP"}),
        json!({"port": 6000, "endPort": 7000}),
    ])
}

fn kubernetes(random: &mut Seeded, number: usize) -> Object {
    let rule = |random: &mut Seeded, side: &str| json!({side: random.some(2, kubernetes_peer), "ports": random.some(2, kubernetes_port)});
    let types = random.one(&[
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ]);
    let spec = json!({
        "podSelector": label_selector(random), "policyTypes": types,
        "ingress": random.some(2, |random| rule(random, "from")),
        "egress": random.some(2, |random| rule(random, "to")),
    });
    Object::kubernetes(random.one(&NAMESPACES), &format!("random-{number}"), spec)
}

fn selector(random: &mut Seeded) -> &'static str {
    random.one(&[
        "all()",
        "app == 'web'",
        "app in {'db', 'cache'}",
        "has(app) && tier != 'front'",
        "!has(nothing) && app starts with 'c'",
        "who == 'partners'",
    ])
}

fn entity(random: &mut Seeded, has_ports: bool) -> Value {
    let mut entity = json!({});
    match random.below(5) {
        0 => entity["selector"] = json!(selector(random)),
        1 => entity["notSelector"] = json!(selector(random)),
        2 => entity["nets"] = json!(["10.244.1.0/24", "fd00:10:244:3::/64"]),
        3 => entity["notNets"] = json!(["10.244.3.0/25", "fd00:10:244:2::/64"]),
        _ => {}
    }
    if random.below(3) == 0 {
        entity["namespaceSelector"] = random.one(&[json!("all()"), json!("side == 'left'")]);
    }
    if has_ports && random.below(2) == 0 {
        let ports = random.one(&[json!([80]), json!(["6000:7000", "dns"]), json!(["redis", 5000])]);
        entity[random.one(&["ports", "notPorts"])] = ports;
    }
    entity
}

fn rule(random: &mut Seeded) -> Value {
    let action = random.one(&["Allow", "Allow", "Deny", "Pass", "Log"]);
    let mut rule = json!({"action": action});
    let protocol = random.one(&[None, Some("TCP"), Some("UDP")]);
    if let Some(protocol) = protocol {
        rule["protocol"] = json!(protocol);
    } else if random.below(3) == 0 {
        rule["notProtocol"] = json!("TCP");
    }
    if random.below(5) == 0 {
        rule["ipVersion"] = random.one(&[json!(4), json!(6)]);
    }
    rule["source"] = entity(random, false);
    rule["destination"] = entity(random, protocol.is_some());
    rule
}

fn warren(random: &mut Seeded, number: usize) -> Object {
    let mut spec = json!({
        "selector": selector(random),
        "types": random.one(&[json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]),
        "ingress": random.some(3, rule),
        "egress": random.some(3, rule),
    });
    if random.below(2) == 0 {
        spec["order"] = json!(random.below(5));
    }
    let (kind, namespace) = match random.below(2) {
        0 => (Kind::Global, None),
        _ => (Kind::Warren, Some(random.one(&NAMESPACES))),
    };
    if kind == Kind::Global && random.below(2) == 0 {
        spec["namespaceSelector"] = json!("side == 'left'");
    }
    Object {
        kind,
        namespace,
        name: format!("random-{number}"),
        labels: json!({}),
        spec,
    }
}

fn policies(seed: u64) -> Vec<Object> {
    let mut random = Seeded(seed);
    let mut objects = Vec::new();
    for number in 0..2 + random.below(4) {
        objects.push(match random.below(2) {
            0 => kubernetes(&mut random, number),
            _ => warren(&mut random, number),
        });
    }
    if random.below(3) == 0 {
        objects.push(Object {
            kind: Kind::NetworkSet,
            namespace: Some("east"),
            name: "partners".to_owned(),
            labels: json!({"who": "partners"}),
            spec: json!({"nets": ["10.244.1.0/24", "fd00:10:244:2::/64"]}),
        });
    }
    objects
}

#[tokio::test]
async fn nodes_enforce_what_verdict_says_of_random_policies() {
    let mut pods = Vec::new();
    for (at, namespace) in NAMESPACES.into_iter().enumerate() {
        for number in 0..3 {
            // Each namespace on all nodes, and each kind of pod too.
            let node = ["node1", "node2", "node3"][(at + number) % 3];
            let name = ["one", "two", "three"][number];
            pods.push((namespace, name, node, labels(number)));
        }
    }
    let Some(lab) = scene(3, &pods).await else { return };
    crate::scene::label(&lab, "east", None, json!({"side": "left"})).await;
    crate::scene::label(&lab, "north", None, json!({"side": "left"})).await;
    let facts = lab.facts().await.unwrap();
    let attempts = all_attempts(&facts);
    assert_eq!(attempts.len(), 9 * 8 * 2 * 4, "pods, other pods, families, ports");
    // Handshakes first: what is late then is not for policy.
    assert_eq!(
        crate::scene::assert_as_judged(&lab, &attempts).await,
        attempts.len()
    );

    let (mut allowed, mut denied) = (0, 0);
    for seed in 0..CASES {
        let objects = policies(seed);
        put(&lab, &objects).await;
        let (wrong, passing) = differences(&lab, &attempts, PATIENCE / 6).await;
        if !wrong.is_empty() {
            remove(&lab, &objects).await;
            let fails = async |objects: &[Object]| {
                put(&lab, objects).await;
                let (wrong, _) = differences(&lab, &attempts, QUICK * 8).await;
                remove(&lab, objects).await;
                !wrong.is_empty()
            };
            let small = smallest(objects, fails).await;
            put(&lab, &small).await;
            let (wrong, _) = differences(&lab, &attempts, QUICK * 8).await;
            panic!("seed {seed}, made small: {small:#?}\nnodes do otherwise: {wrong:#?}");
        }
        remove(&lab, &objects).await;
        allowed += passing;
        denied += attempts.len() - passing;
    }
    // Both happen often enough for this to mean something.
    assert!(
        allowed > 1000 && denied > 1000,
        "{allowed} were allowed, {denied} denied"
    );
}

async fn put(lab: &Lab, objects: &[Object]) {
    for object in objects {
        object.apply(lab).await;
    }
}

async fn remove(lab: &Lab, objects: &[Object]) {
    for object in objects {
        object.delete(lab).await;
    }
}
