//! The two identities an agent has at the API server: what they may, and what they must not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::header::DATE;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use serde_json::json;
use time::OffsetDateTime;
use warren_cluster::ClientConfig;
use warren_cluster::api_error::{describe, status_code};

use super::agent::AgentFacts;
use super::clock::{self, ClockFacts};
use super::finding::Finding;
use super::settings::Settings;

/// How long all questions to the server may take, for each identity.
const LIMIT: Duration = Duration::from_secs(12);

const READING: &str = "api-reading";
const PUBLISHING: &str = "api-publishing";
const RESTRICTION: &str = "node-restriction";

const SERVER: &str = "check that the API server runs, that its address in the kubeconfig is reached from this node, and that no \
                      firewall is between";
const CREDENTIALS: &str = "the credentials are expired, revoked or of another cluster: renew them. The service account's token is \
                           renewed by the kubelet in the agent's pod; the kubelet's own is in the file named by \
                           --publish-kubeconfig";
const RIGHTS: &str = "apply manifests/base/rbac.yaml";

/// One right, and whether the identity should have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Right {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: Option<&'static str>,
    name: Option<String>,
    wanted: bool,
}

impl Right {
    fn new(verb: &'static str, group: &'static str, resource: &'static str, wanted: bool) -> Self {
        Self {
            verb,
            group,
            resource,
            subresource: None,
            name: None,
            wanted,
        }
    }

    fn text(&self) -> String {
        let subresource = self.subresource.map(|it| format!("/{it}")).unwrap_or_default();
        let name = self.name.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
        format!("{} {}{subresource}{name}", self.verb, self.resource)
    }
}

/// Why the server could not be asked.
#[derive(Debug)]
struct Trouble {
    found: String,
    remedy: &'static str,
}

impl Trouble {
    fn of(error: &kube::Error) -> Self {
        Self {
            found: describe(error),
            remedy: match status_code(error) {
                Some(401) => CREDENTIALS,
                Some(403) => RIGHTS,
                Some(_) => "the server has trouble of its own: see its log, and try again",
                None => SERVER,
            },
        }
    }
}

type Answers = Result<Vec<(Right, bool)>, Trouble>;

/// Asks the server as both, and judges.
pub(super) async fn check(settings: &Settings, agent: &AgentFacts) -> Vec<Finding> {
    let own = settings.node.as_str();
    let peer = agent
        .status
        .iter()
        .flat_map(|status| &status.peers)
        .map(|peer| peer.node.as_str())
        .next();
    let reading = async {
        let client = client(&settings.kubeconfig).await?;
        let clock = compare_clocks(&client).await;
        Ok((ask(&client, reading_rights()).await, clock))
    };
    let publishing = async {
        let client = client(&settings.publish_kubeconfig).await?;
        let answers = ask(&client, publishing_rights(own)).await;
        let restricted = match peer {
            Some(peer) => Some(try_foreign_node(&client, peer).await),
            None => None,
        };
        Ok((answers, restricted))
    };
    let (reading, publishing) = tokio::join!(limited(reading), limited(publishing));
    let (read, clock) = match reading {
        Ok((answers, clock)) => (answers, clock),
        Err(trouble) => (Err(trouble), None),
    };
    let (published, restricted) = match publishing {
        Ok((answers, restricted)) => (answers, restricted),
        Err(trouble) => (Err(trouble), None),
    };
    vec![
        judge(READING, &read),
        judge(PUBLISHING, &published),
        judge_restriction(restricted, agent.status.is_ok()),
        clock::judge(clock),
    ]
}

async fn limited<T>(asking: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| {
        Err(Trouble {
            found: format!("no answer within {} s", LIMIT.as_secs()),
            remedy: SERVER,
        })
    })
}

async fn client(kubeconfig: &Option<PathBuf>) -> Result<Client, Trouble> {
    let config = ClientConfig::new(concat!("warren/", env!("CARGO_PKG_VERSION")));
    let config = config.with_kubeconfig(kubeconfig.clone());
    config.build().await.map_err(|error| Trouble {
        found: error.to_string(),
        remedy: "name the files the agent was started with: --kubeconfig and --publish-kubeconfig, or run this in the agent's \
                 container",
    })
}

fn reading_rights() -> Vec<Right> {
    let mut rights = Vec::new();
    for verb in ["list", "watch"] {
        rights.push(Right::new(verb, "", "nodes", true));
        rights.push(Right::new(verb, "", "pods", true));
        rights.push(Right::new(verb, "warren-mesh.io", "meshes", true));
    }
    rights.push(Right::new("patch", "", "nodes", false));
    rights
}

fn publishing_rights(own: &str) -> Vec<Right> {
    vec![
        Right {
            name: Some(own.to_owned()),
            ..Right::new("patch", "", "nodes", true)
        },
        Right {
            subresource: Some("status"),
            ..Right::new("patch", "warren-mesh.io", "meshes", true)
        },
    ]
}

async fn ask(client: &Client, rights: Vec<Right>) -> Answers {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut answers = Vec::new();
    for right in rights {
        let attributes = ResourceAttributes {
            verb: Some(right.verb.to_owned()),
            group: Some(right.group.to_owned()),
            resource: Some(right.resource.to_owned()),
            subresource: right.subresource.map(str::to_owned),
            name: right.name.clone(),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answered = api.create(&PostParams::default(), &review).await;
        let answered = answered.map_err(|error| Trouble::of(&error))?;
        answers.push((right, answered.status.is_some_and(|status| status.allowed)));
    }
    Ok(answers)
}

/// Whether the server lets this node write another's Node: an empty patch, and a dry run at that.
async fn try_foreign_node(client: &Client, peer: &str) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    api.patch(peer, &dry, &Patch::Merge(json!({}))).await.map(drop)
}

/// Any answer has a date, a refusal too.
async fn compare_clocks(client: &Client) -> Option<ClockFacts> {
    let request = http::Request::get("/version").body(Body::empty()).ok()?;
    let started = Instant::now();
    let answer = client.send(request).await.ok()?;
    let (round_trip, local) = (started.elapsed(), OffsetDateTime::now_utc());
    let server = clock::parse(answer.headers().get(DATE)?.to_str().ok()?)?;
    Some(ClockFacts {
        server,
        local,
        round_trip,
    })
}

fn judge(check: &'static str, answers: &Answers) -> Finding {
    let answers = match answers {
        Ok(answers) => answers,
        Err(trouble) => return Finding::fail(check, trouble.found.clone(), trouble.remedy),
    };
    let texts = |wanted: bool| -> Vec<String> {
        let odd = answers
            .iter()
            .filter(|(right, has)| right.wanted == wanted && *has != wanted);
        odd.map(|(right, _)| right.text()).collect()
    };
    let (missing, excess) = (texts(true), texts(false));
    if !missing.is_empty() {
        let remedy = if check == PUBLISHING {
            "publish with the kubelet's credentials (--publish-kubeconfig), whose user is system:node:NAME of this very node, and \
             apply manifests/base/rbac.yaml"
        } else {
            RIGHTS
        };
        return Finding::fail(
            check,
            format!("must be able to, and may not: {}", missing.join(", ")),
            remedy,
        );
    }
    if !excess.is_empty() {
        return Finding::warn(
            check,
            format!("may, and should not: {}", excess.join(", ")),
            "read with the service account warren-agent of manifests/base/rbac.yaml and nothing else: who may write Nodes may give \
             any node another key",
        );
    }
    Finding::ok(check, "has the rights it needs, and none that it must not have")
}

fn judge_restriction(tried: Option<Result<(), kube::Error>>, agent_answers: bool) -> Finding {
    match tried {
        None if agent_answers => Finding::skipped(RESTRICTION, "there is no other node to try it with"),
        None => Finding::skipped(
            RESTRICTION,
            "the agent, which knows the other nodes, does not answer",
        ),
        Some(Ok(())) => Finding::warn(
            RESTRICTION,
            "the identity this node publishes with may write the Nodes of others",
            "turn on the API server's admission plugin NodeRestriction, and publish with the kubelet's credentials: until then one \
             node that was broken into can give any other a false key",
        ),
        Some(Err(error)) if status_code(&error) == Some(403) => {
            Finding::ok(RESTRICTION, "this node cannot publish for another")
        }
        Some(Err(error)) => Finding::skipped(RESTRICTION, describe(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn a_missing_right_fails_and_one_too_many_warns() {
        let answers = |has: fn(&Right) -> bool| -> Answers {
            let rights = reading_rights().into_iter();
            Ok(rights
                .map(|right| {
                    let has = has(&right);
                    (right, has)
                })
                .collect())
        };
        assert_eq!(judge(READING, &answers(|right| right.wanted)).result, Verdict::Ok);
        let all = judge(READING, &answers(|_| true));
        assert_eq!(all.result, Verdict::Warn);
        assert!(all.found.contains("patch nodes"), "{all:?}");
        let blind = judge(
            READING,
            &answers(|right| right.resource == "nodes" && right.wanted),
        );
        assert_eq!(blind.result, Verdict::Fail);
        assert!(
            blind.found.contains("list pods") && blind.found.contains("watch meshes"),
            "{blind:?}"
        );
    }

    #[test]
    fn rights_are_named_with_object_and_subresource() {
        let texts: Vec<_> = publishing_rights("a").iter().map(Right::text).collect();
        assert_eq!(texts, ["patch nodes a", "patch meshes/status"]);
    }

    #[test]
    fn a_server_that_cannot_be_asked_is_a_failure_with_its_own_remedy() {
        let trouble = Err(Trouble {
            found: "401 Unauthorized".to_owned(),
            remedy: CREDENTIALS,
        });
        let finding = judge(READING, &trouble);
        assert_eq!(finding.result, Verdict::Fail);
        assert_eq!(finding.remedy.as_deref(), Some(CREDENTIALS));
        assert_eq!(judge_restriction(Some(Ok(())), true).result, Verdict::Warn);
        assert_eq!(judge_restriction(None, true).result, Verdict::Skipped);
    }
}
