//! The connection to the API server.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;

use crate::api_error::describe;
use crate::connection::{CONNECT_TIMEOUT, READ_TIMEOUT, WRITE_TIMEOUT, client_of};

/// Where a pod finds the address of the API server.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// How to reach the API server.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// A kubeconfig file; `None`: the service account of the pod this runs in, or else `KUBECONFIG` or
    /// `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A file with a token to use instead of the credentials found there: another identity at the same server.
    pub token_file: Option<PathBuf>,
    /// What the server's log calls us, such as `warren-agent/0.1.0`.
    pub user_agent: String,
    /// See [`READ_TIMEOUT`].
    pub read_timeout: Duration,
}

impl ClientConfig {
    /// Of a program with that user agent, everything else by default.
    pub fn new(user_agent: impl Into<String>) -> Self {
        Self {
            kubeconfig: None,
            token_file: None,
            user_agent: user_agent.into(),
            read_timeout: READ_TIMEOUT,
        }
    }

    /// The same with that kubeconfig.
    #[must_use]
    pub fn with_kubeconfig(self, kubeconfig: Option<PathBuf>) -> Self {
        Self { kubeconfig, ..self }
    }

    /// The same as the identity that the token in this file stands for.
    #[must_use]
    pub fn with_token_file(self, token_file: Option<PathBuf>) -> Self {
        Self { token_file, ..self }
    }

    /// Reads the credentials and makes a client of them; connects only when the client is used. A client certificate
    /// stays as it was read: build a new client when the file may have been replaced. A token file is read anew by the
    /// client itself. Must be called in a tokio runtime.
    pub async fn build(&self) -> Result<Client, ClientError> {
        // Fails when a provider is there already: one of the process's own choice is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut config = self.load().await?;
        if let Some(file) = &self.token_file {
            config.auth_info = AuthInfo {
                token_file: Some(file.display().to_string()),
                ..AuthInfo::default()
            };
        }
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(self.read_timeout);
        config.write_timeout = Some(WRITE_TIMEOUT);
        // kube would hold a busy server's answer back and repeat the request up to 15 times, at most 1000 s apart;
        // those who ask here have a back-off of their own and want to know.
        config.default_retry = false;
        let user_agent = HeaderValue::from_str(&self.user_agent).map_err(|_| ClientError::UserAgent {
            text: self.user_agent.clone(),
        })?;
        config.headers.push((USER_AGENT, user_agent));
        if let Some(proxy) = &config.proxy_url {
            return Err(ClientError::Proxy {
                url: proxy.to_string(),
            });
        }
        client_of(&config).map_err(|error| ClientError::Credentials {
            source_of_config: self.source(),
            reason: describe(&error),
        })
    }

    async fn load(&self) -> Result<Config, ClientError> {
        let options = KubeConfigOptions::default();
        if let Some(file) = &self.kubeconfig {
            let unreadable = |error: kube::config::KubeconfigError| ClientError::Kubeconfig {
                file: file.clone(),
                reason: error.to_string(),
            };
            let read = read_kubeconfig(file).await.map_err(unreadable)?;
            return Config::from_custom_kubeconfig(read, &options)
                .await
                .map_err(unreadable);
        }
        if env::var_os(SERVICE_HOST).is_some() {
            return Config::incluster().map_err(|error| ClientError::InCluster {
                reason: error.to_string(),
            });
        }
        Config::from_kubeconfig(&options)
            .await
            .map_err(|error| ClientError::NoConfig {
                reason: error.to_string(),
            })
    }

    fn source(&self) -> String {
        match self.token_file.as_ref().or(self.kubeconfig.as_ref()) {
            Some(file) => file.display().to_string(),
            None if env::var_os(SERVICE_HOST).is_some() => "the pod's service account".to_owned(),
            None => "the default kubeconfig".to_owned(),
        }
    }
}

async fn read_kubeconfig(file: &Path) -> Result<Kubeconfig, kube::config::KubeconfigError> {
    let owned = file.to_owned();
    // The file is small, but it may lie on a mount that hangs.
    match tokio::task::spawn_blocking(move || Kubeconfig::read_from(owned)).await {
        Ok(read) => read,
        Err(lost) => Err(kube::config::KubeconfigError::ReadConfig(
            std::io::Error::other(lost),
            file.to_owned(),
        )),
    }
}

/// No client could be made. Trying again helps once the operator has done what the message says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The kubeconfig that was named cannot be used.
    #[error("cannot use the kubeconfig {}: {reason}; name a readable file with a current context", file.display())]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// In a pod, but its service account cannot be used.
    #[error(
        "cannot use the pod's service account: {reason}; set automountServiceAccountToken, or name a kubeconfig"
    )]
    InCluster {
        /// What is wrong.
        reason: String,
    },
    /// Not in a pod, and no default kubeconfig.
    #[error("found no way to the API server: {reason}; name a kubeconfig, or set KUBECONFIG")]
    NoConfig {
        /// What was tried last.
        reason: String,
    },
    /// The credentials were read and are no good.
    #[error("cannot use the credentials of {source_of_config}: {reason}; renew them")]
    Credentials {
        /// Where they are from.
        source_of_config: String,
        /// What is wrong.
        reason: String,
    },
    /// A way that is not gone: a connection through a proxy would hide from us that the way behind it hangs.
    #[error(
        "cannot reach the API server through the proxy {url}: remove proxy-url from the kubeconfig, and HTTPS_PROXY from \
         the environment"
    )]
    Proxy {
        /// The proxy.
        url: String,
    },
    /// Not a header value.
    #[error("{text:?} cannot be a user agent: use printable ASCII")]
    UserAgent {
        /// What was given.
        text: String,
    },
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
