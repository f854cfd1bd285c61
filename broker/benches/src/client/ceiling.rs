//! The smallest honest HTTP server, which takes what Capstan takes and has no consumers.

use std::net::SocketAddr;

use anyhow::Result;

use super::capstan;
use super::http::Http;
use crate::ceiling::Stats;
use crate::message::Stamp;

/// A connection.
pub struct Ceiling {
    http: Http,
    body: Vec<u8>,
}

impl Ceiling {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self { http: Http::connect(address).await?, body: Vec::new() })
    }

    pub async fn publish(&mut self, stamps: &[Stamp]) -> Result<()> {
        self.body.clear();
        let action = capstan::send(stamps, &mut self.body);
        let head = self.http.head("POST", &format!("/{action}"));
        self.http.call(&head, &self.body).await.map(drop)
    }

    pub async fn stats(&mut self) -> Result<Stats> {
        let head = self.http.head("GET", "/stats");
        Ok(serde_json::from_slice(self.http.call(&head, b"").await?)?)
    }
}
