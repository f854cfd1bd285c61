//! Where the application listens: on 127.0.0.1, or on [::1] alone as some runtimes do that take `localhost` by its first address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The loopback address that took a connection last.
#[derive(Debug, Default)]
pub(crate) struct Loopback(AtomicBool);

impl Loopback {
    /// The application's address.
    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(if self.0.load(Ordering::Relaxed) { V6 } else { V4 }, port)
    }

    /// Sees whether something listens on `port`, and remembers where.
    ///
    /// # Errors
    /// As [`connect`].
    pub(crate) async fn find(&self, port: u16, within: Duration) -> io::Result<()> {
        let found = connect(port, within).await?;
        self.0.store(found.is_ipv6(), Ordering::Relaxed);
        Ok(())
    }
}

/// Sees where something listens on `port`: on 127.0.0.1, which is asked first, or on [::1].
///
/// # Errors
/// What the system says of 127.0.0.1; [`io::ErrorKind::TimedOut`] when it does not connect `within` that time.
pub async fn connect(port: u16, within: Duration) -> io::Result<IpAddr> {
    let both = async {
        let Err(refusal) = TcpStream::connect((V4, port)).await else { return Ok(V4) };
        match TcpStream::connect((V6, port)).await {
            Ok(_) => Ok(V6),
            // A machine may have no IPv6 at all, and says so.
            Err(_) => Err(refusal),
        }
    };
    tokio::time::timeout(within, both).await.unwrap_or_else(|_| {
        let text = format!("not accepted within {} s", within.as_secs_f64());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn either_loopback_is_found_and_the_first_one_first() {
        let loopback = Loopback::default();
        let v6 = TcpListener::bind((V6, 0)).await.unwrap();
        let port = v6.local_addr().unwrap().port();
        assert_eq!(loopback.address(port).to_string(), format!("127.0.0.1:{port}"));
        loopback.find(port, WITHIN).await.unwrap();
        assert_eq!(loopback.address(port).to_string(), format!("[::1]:{port}"));
        let v4 = TcpListener::bind((V4, port)).await.unwrap();
        loopback.find(port, WITHIN).await.unwrap();
        assert_eq!(loopback.address(port), v4.local_addr().unwrap());
        drop((v4, v6));
        let refusal = loopback.find(port, WITHIN).await.unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::ConnectionRefused);
    }
}
