//! Many nodes' rotations against a model of API, devices and network: delayed, reordered, with crashes at every step, with nodes that
//! join, leave and are not ready for a while.
//!
//! After every act it is checked that no pair of nodes which reached each other has lost its path, that no node holds more than two
//! keys, and that no more than two epochs are lived in; at the end that all live in the epoch that was asked for, and that no older key is left on any disk.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod model;
mod random;

use model::{Faults, World};

/// Rotations among a few nodes, without and with all that can go wrong.
#[test]
fn rotations_converge_and_no_pair_loses_its_path() {
    for seed in 0..300 {
        let nodes = 2 + seed as usize % 6;
        let mut world = World::new(nodes, seed, Faults::none());
        world.settle();
        for _ in 0..3 {
            world.rotate(1);
            world.settle();
        }
    }
}

#[test]
fn crashes_at_every_step_lose_nothing() {
    for seed in 0..300 {
        let mut world = World::new(
            4,
            seed,
            Faults {
                crash: 0.15,
                ..Faults::none()
            },
        );
        world.settle();
        world.rotate(1);
        world.run(30);
        world.rotate(2);
        world.calm();
        world.settle();
    }
}

#[test]
fn nodes_that_join_and_leave_hold_nobody_up() {
    for seed in 0..300 {
        let faults = Faults {
            crash: 0.05,
            join: 0.03,
            leave: 0.02,
            ..Faults::none()
        };
        let mut world = World::new(4, seed, faults);
        world.settle();
        for _ in 0..3 {
            world.rotate(1);
            world.run(40);
        }
        world.calm();
        world.settle();
    }
}

#[test]
fn a_node_that_is_away_is_not_waited_for_and_comes_back() {
    for seed in 0..300 {
        let mut world = World::new(
            5,
            seed,
            Faults {
                away: 0.02,
                ..Faults::none()
            },
        );
        world.settle();
        for _ in 0..3 {
            world.rotate(1);
            world.run(120);
        }
        world.calm();
        world.settle();
    }
}

#[test]
fn a_rotation_that_is_called_off_in_its_midst_breaks_no_path_and_goes_on_once_it_is_asked_for_again() {
    for seed in 0..300 {
        let faults = Faults {
            crash: 0.1,
            ..Faults::none()
        };
        let mut world = World::new(5, seed, faults);
        world.settle();
        world.rotate(1);
        world.run(seed as usize % 12);
        world.call_off();
        world.run(60);
        world.call_on();
        world.calm();
        world.settle();
    }
}

#[test]
fn two_hundred_nodes_rotate() {
    let faults = Faults {
        crash: 0.01,
        join: 0.01,
        leave: 0.01,
        away: 0.0005,
    };
    let mut world = World::new(200, 7, faults);
    world.settle();
    world.rotate(1);
    world.run(25);
    world.calm();
    world.settle();
}

/// The checks can fail: with a node that destroys its old key as soon as it has the new one, pairs lose their paths.
#[test]
#[should_panic(expected = "lost its path")]
fn a_node_that_does_not_wait_is_found_out() {
    for seed in 0..20 {
        let mut world = World::new(4, seed, Faults::none());
        world.settle();
        world.impatient = true;
        world.rotate(1);
        world.settle();
    }
}
