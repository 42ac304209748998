//! The network configuration that the runtime writes to the plugin's stdin.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::conf_error::ConfError;
use crate::limits::{MAX_CONF_BYTES, MAX_SOCKET_PATH_BYTES, MAX_TIMEOUT_SECONDS};
use crate::names::{AttachmentId, NetworkName};
use crate::result::{Dns, PrevResult};
use crate::version::SpecVersion;

/// The agent's run directory where the configuration does not name one.
pub const DEFAULT_RUN_DIR: &str = "/run/warren";
/// The name of the agent's socket for attachments in its run directory.
pub const SOCKET_NAME: &str = "cni.sock";
/// How long the plugin waits for the agent where the configuration does not say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Fields that would be silently without effect, each with what to do instead.
const UNSUPPORTED: [(&str, &str); 2] = [
    (
        "ipam",
        "remove it: Warren gives pods addresses of the node's pod CIDRs",
    ),
    ("mtu", "remove it and set spec.mtu of the Mesh object"),
];
/// The same for what a runtime can ask of a single pod.
const UNSUPPORTED_RUNTIME: [(&str, &str); 2] = [
    (
        "ips",
        "remove \"ips\" from the plugin's capabilities: pod addresses cannot be chosen",
    ),
    (
        "mac",
        "remove \"mac\" from the plugin's capabilities: hardware addresses cannot be chosen",
    ),
];

/// The configuration of one call of the plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConf {
    /// The CNI version in use (`cniVersion`).
    pub cni_version: SpecVersion,
    /// The network's name (`name`).
    pub name: NetworkName,
    /// The agent's run directory (`runDir`).
    pub run_dir: PathBuf,
    /// How long to wait for the agent in all (`timeoutSeconds`).
    pub timeout: Duration,
    /// What to put into the result for resolvers (`dns`).
    pub dns: Dns,
    /// `prevResult`, read only when asked for: DEL must not fail because of it.
    prev_result: Option<Value>,
    /// `cni.dev/valid-attachments`, read only for GC.
    valid_attachments: Option<Value>,
}

impl NetConf {
    /// Reads what stood on stdin.
    ///
    /// # Errors
    /// [`ConfError`] says which field is wrong and what to do; [`ConfError::version`] in which version to tell it.
    pub fn parse(stdin: &[u8]) -> Result<Self, ConfError> {
        if stdin.len() > MAX_CONF_BYTES {
            return Err(ConfError::TooLong);
        }
        let mut fields: Map<String, Value> =
            serde_json::from_slice(stdin).map_err(|error| ConfError::NotJson(error.to_string()))?;
        // Without the field the specification has it be 0.1.0, which is then refused by that name.
        let cni_version = take::<String>(&mut fields, "cniVersion", SpecVersion::NEWEST)?;
        let cni_version: SpecVersion = cni_version.as_deref().unwrap_or("0.1.0").parse()?;

        refuse_unsupported(&fields, "", &UNSUPPORTED, cni_version)?;
        if let Some(Value::Object(asked)) = fields.get("runtimeConfig") {
            refuse_unsupported(asked, "runtimeConfig.", &UNSUPPORTED_RUNTIME, cni_version)?;
        }
        let name = take::<String>(&mut fields, "name", cni_version)?.unwrap_or_default();
        let name = name.parse().map_err(|reason| ConfError::Name {
            reason,
            version: cni_version,
        })?;
        let run_dir = take::<PathBuf>(&mut fields, "runDir", cni_version)?;
        let timeout = take::<u64>(&mut fields, "timeoutSeconds", cni_version)?;
        let conf = Self {
            cni_version,
            name,
            run_dir: run_dir.unwrap_or_else(|| DEFAULT_RUN_DIR.into()),
            timeout: timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            dns: take::<Dns>(&mut fields, "dns", cni_version)?.unwrap_or_default(),
            prev_result: fields.remove("prevResult").filter(|value| !value.is_null()),
            valid_attachments: fields.remove("cni.dev/valid-attachments"),
        };
        if !(1..=MAX_TIMEOUT_SECONDS).contains(&conf.timeout.as_secs()) {
            return Err(ConfError::Timeout {
                seconds: conf.timeout.as_secs(),
                version: cni_version,
            });
        }
        if !conf.run_dir.is_absolute() || conf.socket().as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(ConfError::RunDir {
                run_dir: conf.run_dir,
                version: cni_version,
            });
        }
        Ok(conf)
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        Path::new(&self.run_dir).join(SOCKET_NAME)
    }

    /// The result of earlier plugins (ADD) or of the earlier ADD (CHECK), if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn prev_result(&self) -> Result<Option<PrevResult>, ConfError> {
        let Some(value) = &self.prev_result else {
            return Ok(None);
        };
        serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|error| self.field("prevResult", &error))
    }

    /// The attachments of this network that are still in use, for GC.
    ///
    /// # Errors
    /// If the list is absent: taking that for an empty list would cut off every pod of the node. For the same reason
    /// one entry that cannot be read spoils all. `null` is how libcni writes a list of none.
    pub fn valid_attachments(&self) -> Result<Vec<AttachmentId>, ConfError> {
        let Some(value) = &self.valid_attachments else {
            return Err(ConfError::NoValidAttachments {
                version: self.cni_version,
            });
        };
        serde_json::from_value::<Option<Vec<AttachmentId>>>(value.clone())
            .map(Option::unwrap_or_default)
            .map_err(|error| self.field("cni.dev/valid-attachments", &error))
    }

    fn field(&self, field: &'static str, error: &serde_json::Error) -> ConfError {
        ConfError::Field {
            field,
            reason: error.to_string(),
            version: self.cni_version,
        }
    }
}

fn take<T: DeserializeOwned>(
    fields: &mut Map<String, Value>,
    field: &'static str,
    version: SpecVersion,
) -> Result<Option<T>, ConfError> {
    let value = fields.remove(field).unwrap_or_default();
    serde_json::from_value(value).map_err(|error| ConfError::Field {
        field,
        reason: error.to_string(),
        version,
    })
}

fn refuse_unsupported(
    fields: &Map<String, Value>,
    prefix: &str,
    unsupported: &[(&'static str, &'static str)],
    version: SpecVersion,
) -> Result<(), ConfError> {
    for &(key, remedy) in unsupported {
        if let Some(value) = fields.get(key).filter(|value| !is_unset(value)) {
            return Err(ConfError::Unsupported {
                key: format!("{prefix}{key}"),
                value: value.to_string(),
                remedy,
                version,
            });
        }
    }
    Ok(())
}

/// Go programs write fields that were never set as `null`, `{}`, `[]`, `""` or `0`.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => false,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn parse(fields: &str) -> Result<NetConf, ConfError> {
        NetConf::parse(
            format!(r#"{{"cniVersion":"1.0.0","name":"warren","type":"warren-cni"{fields}}}"#).as_bytes(),
        )
    }

    #[test]
    fn defaults_fill_what_is_not_said_and_other_fields_are_passed_over() {
        let conf = parse(r#","dns":{"search":["x.y"]},"ipam":{},"runtimeConfig":{"portMappings":[1]},"k":1"#)
            .unwrap();
        assert_eq!(conf.socket(), Path::new("/run/warren/cni.sock"));
        assert_eq!(conf.timeout, DEFAULT_TIMEOUT);
        assert_eq!(conf.dns.search, ["x.y"]);
        assert_eq!(conf.prev_result(), Ok(None));
    }

    #[test]
    fn each_wrong_field_has_its_code_and_is_told_in_the_version_asked() {
        for (fields, code, part) in [
            (r#","name":7"#, ErrorCode::DECODING_FAILURE, "\"name\""),
            (r#","name":"a/b""#, ErrorCode::INVALID_NETWORK_CONFIG, "'/'"),
            (r#","name":null"#, ErrorCode::INVALID_NETWORK_CONFIG, "is empty"),
            (
                r#","timeoutSeconds":0"#,
                ErrorCode::INVALID_NETWORK_CONFIG,
                "use 1 to 600",
            ),
            (
                r#","timeoutSeconds":601"#,
                ErrorCode::INVALID_NETWORK_CONFIG,
                "use 1 to 600",
            ),
            (
                r#","timeoutSeconds":-1"#,
                ErrorCode::DECODING_FAILURE,
                "\"timeoutSeconds\"",
            ),
            (
                r#","runDir":"run/warren""#,
                ErrorCode::INVALID_NETWORK_CONFIG,
                "run/warren",
            ),
            (r#","dns":[7]"#, ErrorCode::DECODING_FAILURE, "\"dns\""),
            (
                r#","ipam":{"type":"host-local"}"#,
                ErrorCode::UNSUPPORTED_FIELD,
                r#"{"type":"host-local"}"#,
            ),
            (r#","mtu":9000"#, ErrorCode::UNSUPPORTED_FIELD, "(it is 9000)"),
            (
                r#","runtimeConfig":{"ips":["10.0.0.9"]}"#,
                ErrorCode::UNSUPPORTED_FIELD,
                "runtimeConfig.ips",
            ),
            (
                r#","runtimeConfig":{"mac":"02::1"}"#,
                ErrorCode::UNSUPPORTED_FIELD,
                "runtimeConfig.mac",
            ),
        ] {
            let error = parse(fields).unwrap_err();
            assert_eq!(
                (error.code(), error.version()),
                (code, SpecVersion::V1_0_0),
                "{fields}"
            );
            assert!(error.to_string().contains(part), "{error}");
        }
        let long = format!(r#","runDir":"/{}""#, "r".repeat(107));
        assert_eq!(
            parse(&long).unwrap_err().code(),
            ErrorCode::INVALID_NETWORK_CONFIG
        );
    }

    #[test]
    fn what_has_no_version_to_answer_in_is_told_in_the_newest() {
        for (stdin, code) in [
            ("", ErrorCode::DECODING_FAILURE),
            ("[]", ErrorCode::DECODING_FAILURE),
            (r#"{"name":"a"}"#, ErrorCode::INCOMPATIBLE_VERSION),
            (r#"{"cniVersion":"9.0.0"}"#, ErrorCode::INCOMPATIBLE_VERSION),
            (r#"{"cniVersion":1}"#, ErrorCode::DECODING_FAILURE),
            (&" ".repeat(MAX_CONF_BYTES + 1), ErrorCode::INVALID_NETWORK_CONFIG),
        ] {
            let error = NetConf::parse(stdin.as_bytes()).unwrap_err();
            assert_eq!(
                (error.code(), error.version()),
                (code, SpecVersion::NEWEST),
                "{error}"
            );
        }
    }

    #[test]
    fn gc_keeps_what_is_listed_and_refuses_to_guess() {
        let valid = |value: &str| {
            let fields = format!(r#","cni.dev/valid-attachments":{value}"#);
            parse(&fields).unwrap().valid_attachments()
        };
        let listed = valid(r#"[{"containerID":"c1","ifname":"eth0"}]"#).unwrap();
        assert_eq!(listed[0].to_string(), "c1/eth0");
        assert_eq!(valid("null"), Ok(Vec::new()));
        assert_eq!(valid("[]"), Ok(Vec::new()));
        let bad = valid(r#"[{"containerID":"c1","ifname":"eth0"},{"containerID":"../c2","ifname":"eth0"}]"#);
        assert_eq!(bad.unwrap_err().code(), ErrorCode::DECODING_FAILURE);
        let absent = parse("").unwrap().valid_attachments();
        assert_eq!(
            absent,
            Err(ConfError::NoValidAttachments {
                version: SpecVersion::V1_0_0
            })
        );
    }

    #[test]
    fn a_previous_result_is_only_read_when_asked_for() {
        let conf = parse(r#","prevResult":"nonsense""#).unwrap();
        assert_eq!(
            conf.prev_result().unwrap_err().code(),
            ErrorCode::DECODING_FAILURE
        );
    }
}
