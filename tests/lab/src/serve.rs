//! What answers on a pod's ports: each line or datagram comes back behind the pod's name.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::Context;

use crate::knock::sctp_socket;
use crate::pod::{Port, Protocol};

/// Serves until it is killed.
pub fn serve(name: &str, ports: &[Port]) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let mut servers = Vec::new();
        for port in ports {
            // Takes IPv4 too.
            let address = (Ipv6Addr::UNSPECIFIED, port.port);
            let context = || format!("listen on {port}");
            match port.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(address).with_context(context)?;
                    servers.push(scope.spawn(move || tcp(name, &listener)));
                }
                Protocol::Sctp => {
                    let listener = sctp_listener(address.into()).with_context(context)?;
                    servers.push(scope.spawn(move || tcp(name, &listener)));
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(address).with_context(context)?;
                    servers.push(scope.spawn(move || udp(name, &socket)));
                }
            }
        }
        for server in servers {
            // A server that panicked has said why.
            let _ = server.join();
        }
        Ok(())
    })
}

/// One that takes associations as if they were TCP's connections: to who reads and writes lines they are the same.
fn sctp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = sctp_socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn tcp(name: &str, listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let name = name.to_owned();
        thread::spawn(move || talk(&name, &stream));
    }
}

/// Ends with the connection.
fn talk(name: &str, stream: &TcpStream) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if (&*stream)
            .write_all(format!("{name} {line}\n").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

fn udp(name: &str, socket: &UdpSocket) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // Errors are about one datagram: a port unreachable, or an answer that is too long.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = [name.as_bytes(), b" ", &buffer[..length]].concat();
            let _ = socket.send_to(&answer, from);
        }
    }
}
