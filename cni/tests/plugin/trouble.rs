//! An agent that is absent, stuck, dying, of another release or talking nonsense.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use warren_cni_wire::{AddResult, Outcome};

use crate::harness::{Call, Ended, FakeAgent, nobody};

/// Every command that asks the agent, with the code for "the agent cannot be asked now".
const COMMANDS: [(&str, u32); 5] = [
    ("ADD", 11),
    ("DEL", 11),
    ("CHECK", 11),
    ("GC", 11),
    ("STATUS", 50),
];

fn call(command: &str, run_dir: &Path) -> Call {
    Call::new(command, "1.1.0", run_dir)
        .conf("timeoutSeconds", json!(1))
        .conf("cni.dev/valid-attachments", json!([]))
        .conf(
            "prevResult",
            if command == "CHECK" {
                json!({"interfaces": []})
            } else {
                json!(null)
            },
        )
}

/// Asserts that the configured second is waited for, and hardly more.
fn bounded(run: impl FnOnce() -> Ended) -> Ended {
    let start = Instant::now();
    let ended = run();
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1), "gave up after {took:?}");
    assert!(took < Duration::from_secs(15), "took {took:?}");
    ended
}

#[test]
fn an_absent_agent_is_named_by_its_socket_and_the_runtime_told_to_try_again() {
    let (_dir, nobody) = nobody();
    for (command, code) in COMMANDS {
        let told = call(command, &nobody).run().error("1.1.0", code);
        let socket = nobody.join("cni.sock");
        assert!(told.contains(&socket.display().to_string()), "{told}");
        assert!(
            told.starts_with(command) && told.contains("warren-system"),
            "{told}"
        );
    }
}

#[test]
fn a_socket_left_behind_is_an_absent_agent() {
    let (_dir, nobody) = nobody();
    drop(UnixListener::bind(nobody.join("cni.sock")).expect("a socket"));
    for (command, code) in COMMANDS {
        let told = call(command, &nobody).run().error("1.1.0", code);
        assert!(told.contains("does not listen"), "{told}");
    }
}

#[test]
fn a_file_in_the_way_of_the_run_directory_is_an_io_failure() {
    let (_dir, nobody) = nobody();
    let file = nobody.join("file");
    File::create(&file).expect("a file");
    let told = call("ADD", &file).run().error("1.1.0", 5);
    assert!(told.contains("Not a directory"), "{told}");
}

#[test]
fn a_mute_agent_is_given_up_after_the_timeout() {
    for (command, code) in COMMANDS {
        let agent = FakeAgent::hanging_after("");
        let told = bounded(|| call(command, agent.run_dir()).run()).error("1.1.0", code);
        assert!(
            told.contains("did not answer") && told.contains("within 1 s"),
            "{told}"
        );
        agent.request();
    }
}

#[test]
fn an_agent_that_stops_in_the_middle_is_given_up_after_the_timeout() {
    let agent = FakeAgent::hanging_after("{\"version\":1,\"outcome\":");
    let told = bounded(|| call("DEL", agent.run_dir()).run()).error("1.1.0", 11);
    assert!(told.contains("did not answer"), "{told}");
}

#[test]
fn an_agent_that_takes_no_connection_is_given_up_after_the_timeout() {
    let (_dir, nobody) = nobody();
    let path = nobody.join("cni.sock");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    listener
        .bind(&SockAddr::unix(&path).expect("an address"))
        .expect("bound");
    listener.listen(0).expect("listening");
    // A queue of none takes one: the next to come has to wait.
    let _first = UnixStream::connect(&path).expect("the first gets in");
    for (command, code) in COMMANDS {
        let told = bounded(|| call(command, &nobody).run()).error("1.1.0", code);
        assert!(told.contains("did not take a connection"), "{told}");
    }
}

#[test]
fn an_agent_that_dies_before_it_has_answered_is_tried_again_later() {
    let whole = "{\"version\":1,\"outcome\":\"done\"}";
    for said in ["", "{\"version\":1,", whole] {
        for (command, code) in COMMANDS {
            let agent = FakeAgent::saying(said);
            let told = call(command, agent.run_dir()).run().error("1.1.0", code);
            assert!(told.contains("before it had answered"), "{said}: {told}");
        }
    }
}

#[test]
fn an_agent_of_another_release_is_told_apart_with_the_remedy() {
    let agent = FakeAgent::saying("{\"version\":2,\"result\":{}}\n");
    let told = call("ADD", agent.run_dir()).run().error("1.1.0", 100);
    assert!(
        told.contains("version 2") && told.contains("one release"),
        "{told}"
    );
}

#[test]
fn nonsense_is_not_taken_for_an_answer() {
    let long = format!(
        "{{\"version\":1,\"outcome\":\"done\",\"x\":\"{}\"}}\n",
        "x".repeat(1 << 20)
    );
    for said in [
        "\u{fffd}\n",
        "null\n",
        "{}\n",
        "{\"version\":1}\n",
        "{\"version\":1,\"outcome\":\"maybe\"}\n",
        "{\"version\":1,\"outcome\":\"done\"}\n{\"version\":1,\"outcome\":\"done\"}\n",
        "{\"version\":1,\"outcome\":\"added\",\"interfaces\":[],\"ips\":[{\"address\":\"10.0.0.2/32\",\"interface\":3}]}\n",
        &long,
    ] {
        let agent = FakeAgent::saying(said);
        call("DEL", agent.run_dir()).run().error("1.1.0", 100);
    }
}

#[test]
fn an_answer_to_another_command_is_not_taken() {
    for command in ["ADD", "CHECK"] {
        let agent = FakeAgent::answering(Outcome::Done);
        let told = call(command, agent.run_dir()).run().error("1.1.0", 100);
        assert!(told.contains(command), "{told}");
    }
    for command in ["DEL", "GC", "STATUS"] {
        let agent = FakeAgent::answering(Outcome::Added(AddResult::default()));
        let told = call(command, agent.run_dir()).run().error("1.1.0", 100);
        assert!(told.contains(command), "{told}");
    }
}

#[test]
fn an_agent_that_refuses_without_reading_on_is_heard() {
    // A request larger than any socket buffer, to an agent that answers after the first bytes and hangs up.
    use std::io::{Read, Write};
    let (_dir, nobody) = nobody();
    let listener = UnixListener::bind(nobody.join("cni.sock")).expect("a socket");
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.read_exact(&mut [0; 16]).expect("the first bytes");
        let said = b"{\"version\":1,\"outcome\":\"error\",\"code\":11,\"msg\":\"draining\"}\n";
        stream.write_all(said).expect("said");
    });
    let keep: Vec<_> = (0..10_000)
        .map(|id| json!({"containerID": format!("c{id:050}"), "ifname": "eth0"}))
        .collect();
    let told = call("GC", &nobody)
        .conf("cni.dev/valid-attachments", json!(keep))
        .run()
        .error("1.1.0", 11);
    agent.join().expect("the fake agent has done its part");
    assert!(told.contains("draining"), "{told}");
}
