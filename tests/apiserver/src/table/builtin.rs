//! Columns of the built-in kinds: what an operator looks for first, as stock `kubectl` shows it.

use serde_json::{Value, json};

use super::Column;

pub(crate) fn columns(kind: &str) -> Vec<Column> {
    let path = |name, path| Column::path(name, "string", 0, path);
    let number = |name, path| Column::path(name, "integer", 0, path);
    let wide = |name, path| Column::path(name, "string", 1, path);
    let age = Column::age;
    match kind {
        "Node" => vec![
            Column::computed("Status", 0, node_status),
            Column::computed("Roles", 0, node_roles),
            age(),
            path("Version", ".status.nodeInfo.kubeletVersion"),
            wide(
                "Internal-IP",
                ".status.addresses[?(@.type==\"InternalIP\")].address",
            ),
            wide("Pod-CIDRs", ".spec.podCIDRs[*]"),
            wide("OS-Image", ".status.nodeInfo.osImage"),
            wide("Kernel-Version", ".status.nodeInfo.kernelVersion"),
        ],
        "Pod" => vec![
            Column::computed("Ready", 0, pod_ready),
            Column::computed("Status", 0, pod_status),
            Column::computed("Restarts", 0, pod_restarts),
            age(),
            wide("IP", ".status.podIP"),
            wide("Node", ".spec.nodeName"),
        ],
        "Namespace" => vec![path("Status", ".status.phase"), age()],
        "Service" => vec![
            path("Type", ".spec.type"),
            path("Cluster-IP", ".spec.clusterIP"),
            path("Port(s)", ".spec.ports[*].port"),
            age(),
        ],
        "Event" => vec![
            Column::path("Last Seen", "date", 0, ".metadata.creationTimestamp"),
            path("Type", ".type"),
            path("Reason", ".reason"),
            Column::computed("Object", 0, event_object),
            Column::computed("Message", 0, |event| first_of(event, &["message", "note"])),
        ],
        "ConfigMap" | "Secret" => {
            vec![
                Column::computed("Data", 0, |o| {
                    json!(o["data"].as_object().map_or(0, serde_json::Map::len))
                }),
                age(),
            ]
        }
        "Lease" => vec![path("Holder", ".spec.holderIdentity"), age()],
        "DaemonSet" => vec![
            number("Desired", ".status.desiredNumberScheduled"),
            number("Current", ".status.currentNumberScheduled"),
            number("Ready", ".status.numberReady"),
            age(),
        ],
        "Deployment" => {
            vec![
                number("Replicas", ".spec.replicas"),
                number("Available", ".status.availableReplicas"),
                age(),
            ]
        }
        "CustomResourceDefinition" => vec![Column::path(
            "Created At",
            "date",
            0,
            ".metadata.creationTimestamp",
        )],
        _ => vec![age()],
    }
}

fn node_status(node: &Value) -> Value {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let mut status = match conditions
        .filter(|c| c["type"] == "Ready")
        .map(|c| c["status"] == "True")
        .next()
    {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    json!(status)
}

fn node_roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<&str> = labels
        .filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    json!(if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    })
}

fn pod_ready(pod: &Value) -> Value {
    let ready = statuses(pod)
        .filter(|container| container["ready"] == true)
        .count();
    json!(format!(
        "{ready}/{}",
        pod["spec"]["containers"].as_array().map_or(0, Vec::len)
    ))
}

fn pod_status(pod: &Value) -> Value {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return json!("Terminating");
    }
    let waiting = statuses(pod).find_map(|container| container["state"]["waiting"]["reason"].as_str());
    json!(
        waiting
            .or(pod["status"]["reason"].as_str())
            .or(pod["status"]["phase"].as_str())
            .unwrap_or("Unknown")
    )
}

fn pod_restarts(pod: &Value) -> Value {
    json!(
        statuses(pod)
            .filter_map(|container| container["restartCount"].as_i64())
            .sum::<i64>()
            .to_string()
    )
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
}

fn event_object(event: &Value) -> Value {
    let about = first_of(event, &["involvedObject", "regarding"]);
    let text = |field: &str| about[field].as_str().unwrap_or_default().to_lowercase();
    json!(format!("{}/{}", text("kind"), text("name")))
}

fn first_of(object: &Value, fields: &[&str]) -> Value {
    fields
        .iter()
        .map(|field| &object[*field])
        .find(|value| !value.is_null())
        .cloned()
        .unwrap_or_default()
}
