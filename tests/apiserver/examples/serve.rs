//! Serves an empty API on the address given, `127.0.0.1:8001` by default, for trying things by hand:
//! `kubectl --server http://127.0.0.1:8001 get ns`.

use warren_testapi::{Api, Config};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8001".to_owned());
    Api::new(Config::default())
        .serve(tokio::net::TcpListener::bind(address).await?)
        .await
}
