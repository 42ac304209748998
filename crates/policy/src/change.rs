//! What would turn a verdict.

use std::fmt;

use crate::policy::{Direction, Order, PolicyId};
use crate::ruleset::{EndpointName, Part};
use crate::verdict::RuleRef;

/// Something that would turn a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This rule would allow it but for one part.
    Widen {
        /// The rule.
        rule: RuleRef,
        /// The part that does not hold.
        part: Part,
        /// What the part asks for, in words.
        asks: String,
    },
    /// A new rule, in one of these policies or in another that selects the endpoint.
    Allow {
        /// Whom the policy must select.
        endpoint: EndpointName,
        /// In which direction it must allow.
        direction: Direction,
        /// Policies that select it now.
        policies: Vec<PolicyId>,
    },
    /// This rule denies it; to allow it, change the rule or allow it before.
    Overrule {
        /// The rule.
        rule: RuleRef,
        /// The place of its policy.
        order: Order,
    },
    /// A refused policy stands in the way.
    Repair {
        /// The policy.
        policy: PolicyId,
        /// Why it was refused.
        why: String,
    },
    /// This rule allows it; to deny it, narrow the rule and whatever other rules would then allow it.
    Narrow {
        /// The rule.
        rule: RuleRef,
        /// Others of the same side that match and allow.
        others: Vec<RuleRef>,
    },
    /// Nobody speaks of the endpoint in this direction; a policy that selects it and leaves this out would deny it.
    Select {
        /// Whom it must select.
        endpoint: EndpointName,
        /// In which direction.
        direction: Direction,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Widen { rule, part, asks } => {
                let subject = match part {
                    Part::Family => "IP version",
                    Part::Protocol => "protocol",
                    Part::Icmp => "ICMP message",
                    Part::SourcePort => "source port",
                    Part::DestinationPort => "port",
                    Part::Source => "source",
                    Part::Destination => "destination",
                };
                write!(
                    f,
                    "{rule} would allow it but for the {subject}: it asks for {asks}"
                )
            }
            Self::Allow {
                endpoint,
                direction,
                policies,
            } => {
                write!(
                    f,
                    "allow it in an {direction} rule of a policy that selects {endpoint}"
                )?;
                let names: Vec<_> = policies.iter().map(ToString::to_string).collect();
                match names.is_empty() {
                    true => Ok(()),
                    false => write!(f, ", such as {}", names.join(" or ")),
                }
            }
            Self::Overrule { rule, order } => {
                write!(
                    f,
                    "{rule} denies it: change that rule, or allow it in a policy that is asked before (its order: {order})"
                )
            }
            Self::Repair { policy, why } => write!(f, "repair {policy}: {why}"),
            Self::Narrow { rule, others } => {
                write!(f, "{rule} allows it")?;
                for other in others {
                    write!(f, ", and so would {other}")?;
                }
                Ok(())
            }
            Self::Select { endpoint, direction } => {
                write!(
                    f,
                    "a policy that selects {endpoint} for {direction} and does not allow it would deny it"
                )
            }
        }
    }
}
