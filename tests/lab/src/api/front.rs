//! The doors to a lab's API: a listener that passes bytes on, with or without ending TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::credentials::Certificates;

/// What ends TLS with the API's certificate.
pub(super) fn acceptor(certificates: &Certificates) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_slice_iter(certificates.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("read back the server's certificate")?;
    let key =
        PrivateKeyDer::from_pem_slice(certificates.key.as_bytes()).context("read back the server's key")?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("use the server's certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Passes each connection on to `target`, until the lab ends.
pub(super) fn open(listener: TcpListener, tls: Option<TlsAcceptor>, target: SocketAddr) {
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((client, _)) => drop(tokio::spawn(pass(client, tls.clone(), target))),
                // Out of descriptors, or the client has gone already: the next may be served.
                Err(error) => {
                    tracing::warn!(%error, "a client of the API was not served");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    });
}

async fn pass(client: TcpStream, tls: Option<TlsAcceptor>, target: SocketAddr) {
    let result = async {
        // Watch events are small and each is wanted at once.
        client.set_nodelay(true)?;
        match tls {
            Some(tls) => join(tls.accept(client).await?, target).await,
            None => join(client, target).await,
        }
    };
    if let Err(error) = result.await {
        tracing::debug!(%error, "a connection to the API broke");
    }
}

async fn join(mut client: impl AsyncRead + AsyncWrite + Unpin, target: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
