//! Who may do what: tokens for the lab's identities, and the certificates the API shows.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// The service account that agents read as. `manifests/base` gives it its rights.
const READER: &str = "system:serviceaccount:warren-system:warren-agent";

/// The service account that agents use the Lease as.
const STEWARD: &str = "system:serviceaccount:warren-system:warren-steward";

/// What every service account of that namespace is in.
const ACCOUNT_GROUPS: [&str; 3] = [
    "system:serviceaccounts",
    "system:serviceaccounts:warren-system",
    "system:authenticated",
];

/// One identity.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    /// The bearer token that proves it.
    pub(crate) token: String,
}

/// All identities of a lab.
#[derive(Debug, Clone)]
pub(crate) struct Identities {
    pub(crate) admin: Identity,
    pub(crate) reader: Identity,
    pub(crate) steward: Identity,
    /// By node name: the kubelet's, and the one its agent publishes as.
    pub(crate) nodes: BTreeMap<String, Identity>,
}

impl Identities {
    pub(crate) fn new(nodes: impl IntoIterator<Item = String>) -> anyhow::Result<Self> {
        let node = |name: String| {
            let identity = Identity::new(&format!("system:node:{name}"), &["system:nodes"])?;
            Ok((name, identity))
        };
        Ok(Self {
            admin: Identity::new("lab-admin", &["system:masters"])?,
            reader: Identity::new(READER, &ACCOUNT_GROUPS)?,
            steward: Identity::new(STEWARD, &ACCOUNT_GROUPS)?,
            nodes: nodes.into_iter().map(node).collect::<anyhow::Result<_>>()?,
        })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Identity> {
        [&self.admin, &self.reader, &self.steward]
            .into_iter()
            .chain(self.nodes.values())
    }
}

impl Identity {
    fn new(user: &str, groups: &[&str]) -> anyhow::Result<Self> {
        let token = fs::read_to_string("/proc/sys/kernel/random/uuid").context("make a token")?;
        Ok(Self {
            user: user.to_owned(),
            groups: groups.iter().map(|&it| it.to_owned()).collect(),
            token: token.trim().to_owned(),
        })
    }
}

/// The API server's certificate, and the authority that signed it and that clients trust. All in PEM.
pub(crate) struct Certificates {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// Signs service account tokens.
    pub(crate) accounts: KeyPair,
}

impl Certificates {
    /// For a server with these addresses.
    pub(crate) fn new(addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let authority_key = KeyPair::generate().context("make the authority's key")?;
        let mut params = CertificateParams::new(Vec::new()).context("describe the authority")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "warren-lab");
        let authority = params
            .self_signed(&authority_key)
            .context("make the authority")?
            .pem();
        let issuer = Issuer::new(params, authority_key);

        let mut names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        names.extend(["localhost", "kubernetes", "kubernetes.default.svc"].map(str::to_owned));
        let key = KeyPair::generate().context("make the server's key")?;
        let mut params = CertificateParams::new(names).context("describe the server")?;
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        let certificate = params
            .signed_by(&key, &issuer)
            .context("make the server's certificate")?
            .pem();
        let accounts = KeyPair::generate().context("make the service accounts' key")?;
        Ok(Self {
            authority,
            certificate,
            key: key.serialize_pem(),
            accounts,
        })
    }
}

/// Writes the kubeconfig of one identity.
pub(crate) fn write_kubeconfig(
    path: &Path,
    server: &str,
    authority: &Path,
    identity: &Identity,
) -> anyhow::Result<()> {
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": identity.user, "user": {"token": identity.token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": identity.user}}],
    });
    // JSON is YAML, too.
    write_secret(path, serde_json::to_string_pretty(&config)?.as_bytes())
}

/// Writes a file that only its owner reads.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .with_context(|| format!("write {}", path.display()))
}
