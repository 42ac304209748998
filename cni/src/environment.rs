//! What the runtime says in environment variables.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

use warren_cni_wire::{AttachmentId, Command, ErrorCode, IfName, NameError, NetConf, PodRef};

use crate::failure::Failure;

const VERSION: &str = "VERSION";
/// The keys of `CNI_ARGS` that container runtimes pass for Kubernetes.
const KNOWN_ARGS: [&str; 5] = [
    "IgnoreUnknown",
    "K8S_POD_NAMESPACE",
    "K8S_POD_NAME",
    "K8S_POD_UID",
    "K8S_POD_INFRA_CONTAINER_ID",
];

/// What the plugin is called to do (`CNI_COMMAND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// VERSION, which the plugin answers by itself.
    Version,
    /// A command for the agent.
    Agent(Verb),
}

/// The commands that are for the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
}

impl Verb {
    const ALL: [Self; 5] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status];

    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The variables of one call. An empty variable is taken for a missing one, as all plugins do.
pub(crate) struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Environment<'a> {
    pub(crate) fn new(variable: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { variable }
    }

    pub(crate) fn asked(&self) -> Result<Asked, Failure> {
        let text = self
            .text("CNI_COMMAND")?
            .ok_or_else(|| missing(&["CNI_COMMAND"]))?;
        if text == VERSION {
            return Ok(Asked::Version);
        }
        let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == text);
        verb.map(Asked::Agent).ok_or_else(|| {
            let all = Verb::ALL.map(Verb::as_str).join(", ");
            invalid(format!(
                "CNI_COMMAND is {text:?}; it must be one of {all}, {VERSION}"
            ))
        })
    }

    pub(crate) fn if_name(&self) -> Result<IfName, Failure> {
        self.required("CNI_IFNAME")
    }

    /// The message to the agent.
    pub(crate) fn command(&self, verb: Verb, conf: &NetConf) -> Result<Command, Failure> {
        Ok(match verb {
            Verb::Add => {
                self.refuse_missing(&["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])?;
                Command::Add {
                    attachment: self.attachment()?,
                    netns: self.required("CNI_NETNS")?,
                    pod: self.pod()?,
                }
            }
            Verb::Check => {
                self.refuse_missing(&["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])?;
                Command::Check {
                    attachment: self.attachment()?,
                    netns: self.required("CNI_NETNS")?,
                    pod: self.pod()?,
                }
            }
            Verb::Del => {
                self.refuse_missing(&["CNI_CONTAINERID", "CNI_IFNAME"])?;
                // The attachment alone says what to take down. What else is wrong must not keep it up.
                Command::Del {
                    attachment: self.attachment()?,
                    netns: self.required("CNI_NETNS").ok(),
                    pod: self.pod().ok().flatten(),
                }
            }
            Verb::Gc => Command::Gc {
                valid_attachments: conf.valid_attachments()?,
            },
            Verb::Status => Command::Status,
        })
    }

    fn attachment(&self) -> Result<AttachmentId, Failure> {
        Ok(AttachmentId {
            container_id: self.required("CNI_CONTAINERID")?,
            if_name: self.if_name()?,
        })
    }

    /// The pod, from `CNI_ARGS`: `KEY=VALUE` pairs with semicolons between.
    fn pod(&self) -> Result<Option<PodRef>, Failure> {
        let args = self.text("CNI_ARGS")?.unwrap_or_default();
        let mut pairs = Vec::new();
        for pair in args.split(';').filter(|pair| !pair.is_empty()) {
            let pair = pair.split_once('=');
            pairs.push(pair.ok_or_else(|| invalid("CNI_ARGS must be KEY=VALUE pairs with \";\" between"))?);
        }
        let value = |key: &str| {
            let found = pairs
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| (*value).to_owned());
            found.filter(|value| !value.is_empty())
        };
        let ignore_unknown =
            value("IgnoreUnknown").is_some_and(|flag| flag == "1" || flag.eq_ignore_ascii_case("true"));
        if let Some((key, _)) = pairs
            .iter()
            .find(|(key, _)| !KNOWN_ARGS.contains(key) && !ignore_unknown)
        {
            return Err(invalid(format!(
                "CNI_ARGS has the unknown key {key:?}; remove it or add IgnoreUnknown=1"
            )));
        }
        match (value("K8S_POD_NAMESPACE"), value("K8S_POD_NAME")) {
            (None, None) => Ok(None),
            (Some(namespace), Some(name)) => PodRef::new(namespace, name, value("K8S_POD_UID"))
                .map(Some)
                .map_err(|error| invalid(format!("CNI_ARGS: {error}"))),
            (Some(_), None) => Err(invalid(
                "CNI_ARGS has K8S_POD_NAMESPACE but not K8S_POD_NAME; pass both",
            )),
            (None, Some(_)) => Err(invalid(
                "CNI_ARGS has K8S_POD_NAME but not K8S_POD_NAMESPACE; pass both",
            )),
        }
    }

    fn required<T: FromStr<Err = NameError>>(&self, name: &str) -> Result<T, Failure> {
        let text = self.text(name)?.ok_or_else(|| missing(&[name]))?;
        text.parse().map_err(|error| invalid(format!("{name} {error}")))
    }

    /// Names all that are missing at once, so that they need not be found one by one.
    fn refuse_missing(&self, names: &[&str]) -> Result<(), Failure> {
        let mut absent = Vec::new();
        for name in names {
            if self.text(name)?.is_none() {
                absent.push(*name);
            }
        }
        if absent.is_empty() {
            Ok(())
        } else {
            Err(missing(&absent))
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        let Some(value) = (self.variable)(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        value
            .into_string()
            .map(Some)
            .map_err(|_| invalid(format!("{name} is not UTF-8")))
    }
}

fn missing(names: &[&str]) -> Failure {
    invalid(format!(
        "required environment variables missing: {}",
        names.join(", ")
    ))
}

fn invalid(msg: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::INVALID_ENVIRONMENT, msg)
}
