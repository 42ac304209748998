//! The agent is killed at any moment of its work and started again at once: nothing leaks, nothing stays half made, and
//! who does not depend on that work notices nothing.
//!
//! The moments are dealt over the time that the work takes undisturbed. They come from a seed, which is printed;
//! `WARREN_LAB_SEED` repeats one.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod onlookers;
mod soundness;
#[path = "../support/mod.rs"]
mod support;
mod trial;
mod work;

use std::cell::Cell;

use support::{assert_all_reach_all, crossed_since, lab};
use trial::Trial;
use warren_lab::{ApiKind, Counts, LabOptions};
use work::Work;

/// Kills a test; the five tests on the embedded API make fifty.
const KILLS: u32 = 10;

#[tokio::test]
async fn an_agent_that_is_killed_while_pods_are_attached() {
    killed(ApiKind::Embedded, &[Work::Attach], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_pods_are_detached() {
    killed(ApiKind::Embedded, &[Work::Detach], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_a_peer_leaves_and_joins() {
    killed(ApiKind::Embedded, &[Work::Peer], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_publishes() {
    killed(ApiKind::Embedded, &[Work::Publish], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_starts() {
    killed(ApiKind::Embedded, &[Work::Start], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_at_its_work_on_a_real_api_server() {
    let all = [Work::Attach, Work::Detach, Work::Peer, Work::Publish, Work::Start];
    killed(ApiKind::Real, &all, 2).await;
}

#[tokio::test]
#[ignore = "little of each of the above, for the slow machine of hack/vm.sh, where devices are the kernel's"]
async fn an_agent_that_is_killed_at_its_work_on_a_slow_machine() {
    killed(ApiKind::Embedded, &[Work::Attach, Work::Peer], 1).await;
}

async fn killed(api: ApiKind, works: &[Work], kills: u32) {
    let options = LabOptions {
        api,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let trial = Trial::prepare(lab).await;
    let over = Cell::new(false);
    let drive = async {
        for work in works {
            trial.kill_at(*work, kills).await;
        }
        trial.assert_that_a_restart_changes_nothing().await;
        over.set(true);
    };
    let (here, there) = (&trial.here, &trial.there);
    let (to, fro, looks, ()) = tokio::join!(
        trial.ping_until(here, there, &over),
        trial.ping_until(there, here, &over),
        trial.look_for_the_guard_until(&over),
        drive
    );
    eprintln!("answered without a loss: {to} and {fro} echo requests; the guard was there {looks} times");
    assert!(looks > 10 && to > 50 && fro > 50, "nobody looked");
    assert_all_reach_all(&trial.lab, &trial.lab.facts().await.unwrap()).await;

    for pod in trial.pods().await {
        if pod.key != trial.here.key {
            trial.lab.pod_remove(pod.key).await.unwrap();
        }
    }
    trial.assert_sound().await;
    assert_eq!(crossed_since(&trial.lab, &Counts::default()).await.plaintext, 0);
}
