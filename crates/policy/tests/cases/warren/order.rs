//! Who is asked first, and what Log, Pass and the ends of tiers do.

use warren_policy::policy::TierEnd;
use warren_policy::{Decision, Input, Order, Policy, Reason, Tier, Verdict, compile, verdict};

use crate::world::World;

/// A global policy about what comes in to x/a.
fn to_x_a(world: World, name: &str, order: &str, action: &str) -> World {
    let spec = format!(
        "{{{order} selector: \"pod == 'a' && projectcalico.org/namespace == 'x'\", ingress: [{{action: {action}}}]}}"
    );
    world.global(name, &spec)
}

fn decided_by(verdict: &Verdict) -> String {
    let reason = &verdict.deciding().1.reason;
    if let Reason::Rule(rule) = reason {
        rule.policy.name.clone()
    } else {
        format!("{reason:?}")
    }
}

#[test]
fn smaller_orders_are_asked_first_and_names_break_ties() {
    for (first, second, winner) in [
        (("one", "order: 20,"), ("two", "order: 10,"), "two"),
        (("one", "order: 10,"), ("two", "order: 20,"), "one"),
        (("b", "order: 5,"), ("a", "order: 5.0,"), "a"),
        (("b", "order: -1,"), ("a", "order: 0.5,"), "b"),
        (("a", ""), ("b", "order: 1000000,"), "b"),
        (("b", ""), ("a", ""), "a"),
    ] {
        let world = to_x_a(World::new(), first.0, first.1, "Allow");
        let world = to_x_a(world, second.0, second.1, "Deny");
        assert_eq!(decided_by(&world.verdict("y/a", "x/a", "tcp/80")), winner);
    }
}

#[test]
fn kubernetes_policies_stand_at_order_1000() {
    let kubernetes = |world: World| world.kubernetes("x", "{podSelector: {}, ingress: [{}]}");
    for (order, action) in [
        ("order: 999,", Decision::Deny),
        ("order: 1000,", Decision::Deny),
        ("order: 1001,", Decision::Allow),
        ("", Decision::Allow),
    ] {
        let world = kubernetes(to_x_a(World::new(), "zz", order, "Deny"));
        assert_eq!(world.verdict("y/a", "x/a", "tcp/80").action, action, "{order}");
    }
    // What Kubernetes's policies do not allow, a later one still may.
    let world = World::new().kubernetes("x", "{podSelector: {}, policyTypes: [Ingress]}");
    let world = to_x_a(world, "later", "order: 2000,", "Allow");
    assert!(world.reaches("y/a", "x/a", "tcp/80"));
    assert!(!world.reaches("y/a", "x/b", "tcp/80"));
}

#[test]
fn what_no_rule_decides_is_denied_to_selected_pods_and_allowed_to_others() {
    let world = World::new().warren(
        "x",
        "only-80",
        "{selector: \"pod == 'a'\", ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}",
    );
    world.expect("tcp/80", |_, _| true);
    world.expect("tcp/81", |_, to| to != "x/a");
    let verdict = world.verdict("y/a", "x/a", "tcp/81");
    assert!(
        matches!(&verdict.ingress.reason, Reason::EndOfTier { policies, .. } if policies[0].name == "only-80")
    );
    assert_eq!(
        world.verdict("y/a", "x/b", "tcp/81").ingress.reason,
        Reason::NoPolicy
    );
}

#[test]
fn log_notes_and_goes_on() {
    let world = to_x_a(World::new(), "a-log", "order: 1,", "Log");
    let world = to_x_a(world, "b-deny", "order: 2,", "Deny");
    let verdict = world.verdict("y/a", "x/a", "tcp/80");
    assert_eq!(decided_by(&verdict), "b-deny");
    assert_eq!(verdict.ingress.logged.len(), 1);
    assert_eq!(verdict.ingress.logged[0].policy.name, "a-log");
    // Log alone decides nothing: the end of the tier does.
    let alone = to_x_a(World::new(), "log", "", "Log").verdict("y/a", "x/a", "tcp/80");
    assert!(matches!(alone.ingress.reason, Reason::EndOfTier { .. }));
    assert_eq!(alone.ingress.logged.len(), 1);
}

#[test]
fn pass_skips_the_rest_of_its_tier() {
    let world = to_x_a(World::new(), "a-pass", "order: 1,", "Pass");
    let world = to_x_a(world, "b-deny", "order: 2,", "Deny");
    let verdict = world.verdict("y/a", "x/a", "tcp/80");
    assert_eq!(
        (verdict.action, verdict.ingress.reason),
        (Decision::Allow, Reason::PassedOn)
    );
}

#[test]
fn tiers_are_asked_in_their_order_and_end_as_they_say() {
    let tier = |name: &str, order: f64, end| Tier {
        name: name.into(),
        order: Order::new(order).expect("a finite number"),
        end,
    };
    let in_tier = |world: World, tier: &str, name: &str, action: &str| {
        let spec = format!(
            "{{tier: {tier}, selector: \"pod == 'a'\", ingress: [{{action: {action}, protocol: TCP, destination: {{ports: [80]}}}}]}}"
        );
        world.global(name, &spec)
    };
    let world = in_tier(World::new(), "security", "quarantine", "Deny");
    let world = in_tier(world, "platform", "monitoring", "Allow");
    let world = in_tier(world, "default", "apps", "Deny");
    let judge = |policies: &[Policy], tiers: &[Tier], port: &str| {
        let rules = compile(&Input {
            tiers,
            ..Input::new(policies, &world.cluster)
        });
        assert_eq!(rules.refusals, []);
        verdict(&rules, &world.flow("y/b", "x/a", port, 0))
    };
    let (deny, pass) = (TierEnd::Deny, TierEnd::Pass);
    let tiers = [tier("platform", 200.0, pass), tier("security", 100.0, pass)];
    assert_eq!(
        decided_by(&judge(&world.policies, &tiers, "tcp/80")),
        "quarantine"
    );
    assert_eq!(
        decided_by(&judge(&world.policies[1..], &tiers, "tcp/80")),
        "monitoring"
    );
    // Port 81 is passed on by both, and the default tier denies at its end.
    let verdict = judge(&world.policies, &tiers, "tcp/81");
    assert!(matches!(&verdict.ingress.reason, Reason::EndOfTier { tier, .. } if tier == "default"));
    let closing = [tier("platform", 200.0, deny), tier("security", 100.0, pass)];
    let verdict = judge(&world.policies, &closing, "tcp/81");
    assert!(matches!(&verdict.ingress.reason, Reason::EndOfTier { tier, .. } if tier == "platform"));
}

#[test]
fn a_policy_of_a_tier_that_is_not_there_is_refused_and_its_pods_fail_closed() {
    let world = World::new()
        .global(
            "lost",
            "{tier: nowhere, selector: \"pod == 'a'\", ingress: [{action: Allow}]}",
        )
        .global("open", "{order: 1, ingress: [{action: Allow}]}");
    let rules = world.rules();
    assert_eq!(rules.refusals.len(), 1);
    assert_eq!(rules.refusals[0].code, "policy-unknown-tier");
    let judged = |to| verdict(&rules, &world.flow("y/b", to, "tcp/80", 0)).ingress;
    assert!(matches!(judged("x/a").reason, Reason::Refused(_)));
    assert_eq!(judged("x/b").decision, Decision::Allow);
}
