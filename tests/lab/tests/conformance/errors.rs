//! Well-known error codes (specification, section 5), as far as a client that checks its own arguments lets calls through
//! that earn them; all of them are tested at the plugin itself.

use serde_json::{Value, json};

use crate::client::Client;
use crate::{lab_with_client, one_node};

#[tokio::test]
async fn a_client_is_told_what_is_wrong_with_the_code_of_the_specification() {
    let Some((lab, cnitool)) = lab_with_client(one_node()).await else {
        return;
    };
    let client = Client::new(&lab, &cnitool).await;
    let netns = client.namespace("pod").await;
    let right = client.ours("1.1.0");
    let list = |field: &str, value: Value| {
        let mut list = right.clone();
        list[field] = value;
        list
    };
    let plugin = |field: &str, value: Value| {
        let mut list = right.clone();
        list["plugins"][0][field] = value;
        list
    };
    for (list, netns, code, part) in [
        (list("cniVersion", json!("0.2.0")), netns.as_str(), 1, "0.2.0"),
        (
            plugin("ipam", json!({"type": "host-local"})),
            &netns,
            2,
            "host-local",
        ),
        (plugin("mtu", json!(9000)), &netns, 2, "9000"),
        (
            plugin("timeoutSeconds", json!("soon")),
            &netns,
            6,
            "timeoutSeconds",
        ),
        (plugin("timeoutSeconds", json!(0)), &netns, 7, "timeoutSeconds"),
        (plugin("runDir", json!("run/warren")), &netns, 7, "runDir"),
        (plugin("runDir", json!("/etc/passwd")), &netns, 5, "/etc/passwd"),
        (plugin("runDir", json!("/run/nobody")), &netns, 11, "warren-agent"),
        (right.clone(), "/proc/self/ns/net", 8, "node's own"),
    ] {
        client.configure(&list);
        let (told, msg) = client.refused("add", netns).await;
        assert_eq!(told, code, "{list}: {msg}");
        assert!(msg.contains(part), "{list}: {msg}");
        assert_eq!(client.heard()["cniVersion"], "1.1.0");
        assert_eq!(client.attached(), 0, "{list}");
    }

    // The two that are about an attachment.
    client.configure(&right);
    client.succeed("add", &netns).await;
    lab.node_stop(&client.node.name).await.unwrap();
    for verb in ["check", "del"] {
        let (code, msg) = client.refused(verb, &netns).await;
        assert_eq!(code, 11, "{verb}: {msg}");
    }
    lab.node_start(&client.node.name).await.unwrap();
    assert_eq!(client.succeed("check", &netns).await, "");
    client.succeed("del", &netns).await;
    assert_eq!(client.attached(), 0);
}
