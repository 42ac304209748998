//! A lab's Kubernetes API, embedded or real. Either way clients see HTTPS with a certificate to check, and prove who
//! they are by a token.

mod credentials;
mod front;
pub(crate) mod objects;
mod real;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::TcpListener;

use crate::dir::LabDir;
use crate::layout::{self, NodeLayout, Subnet};
use crate::options::{ApiKind, LabOptions};
use credentials::{Certificates, Identities, Identity, write_kubeconfig, write_secret};
pub(crate) use real::{find_assets, last_lines};

/// TCP port of the API inside a lab.
pub(crate) const API_PORT: u16 = 6443;

/// TCP port, on the loopback of the root namespace, where the embedded API speaks plain HTTP.
const PLAIN_PORT: u16 = 8001;

/// A running API. It ends when this is dropped.
pub(crate) struct LabApi {
    /// As an administrator.
    pub(crate) client: Client,
    /// Where the host reaches it.
    pub(crate) host_url: String,
    /// Of the real one.
    _programs: Option<real::RealApi>,
}

impl LabApi {
    /// Starts it in the lab's root namespace, writes all kubeconfigs and waits until it answers. `host`: a listener of
    /// the host's network namespace.
    pub(crate) async fn start(
        options: &LabOptions,
        dir: &LabDir,
        nodes: &[NodeLayout],
        host: std::net::TcpListener,
    ) -> anyhow::Result<Self> {
        let inside = layout::api_address(options.families);
        let loopback: IpAddr = if inside.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        };
        let mut addresses = vec![inside, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        addresses.extend(
            (1..=options.subnets)
                .map(Subnet)
                .flat_map(|it| it.router(options.families))
                .map(|it| it.addr()),
        );
        let certificates = Certificates::new(&addresses)?;
        let identities = Identities::new(nodes.iter().map(|it| it.name()))?;
        let host_url = format!("https://{}", host.local_addr().context("the host's listener")?);
        write_files(dir, &certificates, &identities, &host_url, &https(inside), nodes)?;

        host.set_nonblocking(true).context("the host's listener")?;
        let host = TcpListener::from_std(host).context("the host's listener")?;
        let (programs, client);
        match options.api {
            ApiKind::Embedded => {
                start_embedded(&identities).await?;
                let plain = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PLAIN_PORT);
                let tls = front::acceptor(&certificates)?;
                let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), API_PORT);
                let listener = TcpListener::bind(any)
                    .await
                    .with_context(|| format!("listen on {any}"))?;
                front::open(listener, Some(tls.clone()), plain);
                front::open(host, Some(tls), plain);
                client = client_of(dir).await?;
                programs = None;
            }
            ApiKind::Real => {
                let assets = options
                    .assets
                    .as_deref()
                    .context("no folder with etcd and kube-apiserver")?;
                let mut started = real::RealApi::start(
                    assets,
                    &dir.api(),
                    inside,
                    options.families,
                    &certificates,
                    &identities,
                )?;
                front::open(host, None, SocketAddr::new(loopback, API_PORT));
                client = client_of(dir).await?;
                started.ready(&client).await?;
                programs = Some(started);
            }
        }
        Ok(Self {
            client,
            host_url,
            _programs: programs,
        })
    }
}

/// A client for a kubeconfig.
pub(crate) async fn client(path: &Path) -> anyhow::Result<Client> {
    // Fails if one is chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use {}", path.display()))?;
    Client::try_from(config).context("make a client of the API")
}

async fn client_of(dir: &LabDir) -> anyhow::Result<Client> {
    client(&dir.inside_kubeconfig()).await
}

fn https(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, API_PORT))
}

fn write_files(
    dir: &LabDir,
    certificates: &Certificates,
    identities: &Identities,
    host_url: &str,
    inside_url: &str,
    nodes: &[NodeLayout],
) -> anyhow::Result<()> {
    let api = dir.api();
    std::fs::create_dir_all(&api).with_context(|| format!("make {}", api.display()))?;
    let authority = api.join("ca.crt");
    write_secret(&authority, certificates.authority.as_bytes())?;
    write_secret(&api.join("server.crt"), certificates.certificate.as_bytes())?;
    write_secret(&api.join("server.key"), certificates.key.as_bytes())?;

    let write =
        |path: &Path, url: &str, identity: &Identity| write_kubeconfig(path, url, &authority, identity);
    write(&dir.kubeconfig(), host_url, &identities.admin)?;
    write(&dir.inside_kubeconfig(), inside_url, &identities.admin)?;
    for name in nodes.iter().map(|it| it.name()) {
        let node = dir.node(&name);
        node.create()?;
        write(&node.kubeconfig(), inside_url, &identities.reader)?;
        write_secret(&node.steward_token(), identities.steward.token.as_bytes())?;
        let identity = identities
            .nodes
            .get(&name)
            .with_context(|| format!("no identity for {name}"))?;
        write(&node.publish_kubeconfig(), inside_url, identity)?;
    }
    Ok(())
}

async fn start_embedded(identities: &Identities) -> anyhow::Result<()> {
    use warren_testapi::{Api, Config, User};
    let token = |it: &Identity| {
        (
            it.token.clone(),
            User {
                name: it.user.clone(),
                groups: it.groups.clone(),
            },
        )
    };
    let config = Config {
        tokens: identities.all().map(token).collect(),
        ..Config::default()
    };
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PLAIN_PORT);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let api = Api::new(config);
    tokio::spawn(async move {
        if let Err(error) = api.serve(listener).await {
            tracing::error!(%error, "the embedded API ended");
        }
    });
    Ok(())
}
