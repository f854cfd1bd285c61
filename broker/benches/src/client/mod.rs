//! One client for all peers: publish, take, settle, each awaited until the server confirms it.

mod capstan;
mod ceiling;
mod http;
mod postgres;
mod redis;
mod resp;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::message::Stamp;
use crate::peer::Peer;

pub use http::Http;
pub use postgres::{SCHEMA as POSTGRES_SCHEMA, connect as connect_postgres};
pub use resp::Resp;

/// A producer's or consumer's connection.
pub enum Client {
    Capstan(capstan::Capstan),
    Ceiling(ceiling::Ceiling),
    Postgres(Box<postgres::Postgres>),
    Redis(redis::Redis),
}

impl Client {
    /// Connects as the producer or consumer of this number.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn connect(peer: Peer, address: SocketAddr, number: usize) -> Result<Self> {
        Ok(match peer {
            Peer::Capstan => Self::Capstan(capstan::Capstan::connect(address).await?),
            Peer::Ceiling => Self::Ceiling(ceiling::Ceiling::connect(address).await?),
            Peer::Postgres => Self::Postgres(Box::new(postgres::Postgres::connect(address).await?)),
            Peer::Redis | Peer::RedisSteady => Self::Redis(redis::Redis::connect(address, number).await?),
        })
    }

    /// Publishes messages, all in one request or pipeline, and waits until they are confirmed.
    ///
    /// # Errors
    /// They are not.
    pub async fn publish(&mut self, queue: usize, stamps: &[Stamp]) -> Result<()> {
        match self {
            Self::Capstan(client) => client.publish(queue, stamps).await,
            Self::Ceiling(client) => client.publish(stamps).await,
            Self::Postgres(client) => client.publish(stamps).await,
            Self::Redis(client) => client.publish(queue, stamps).await,
        }
    }

    /// Leases up to `most` messages; waits up to `idle` for a first one.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn take(&mut self, queue: usize, most: usize, idle: Duration) -> Result<Vec<Stamp>> {
        match self {
            Self::Capstan(client) => client.take(queue, most, idle).await,
            Self::Ceiling(_) => bail!("the ceiling has no consumers"),
            Self::Postgres(client) => client.take(most, idle).await,
            Self::Redis(client) => client.take(queue, most, idle).await,
        }
    }

    /// Acknowledges what was taken last and waits until that is confirmed.
    ///
    /// # Errors
    /// Not all of it was acknowledged.
    pub async fn settle(&mut self, queue: usize) -> Result<()> {
        match self {
            Self::Capstan(client) => client.settle(queue).await,
            Self::Ceiling(_) => bail!("the ceiling has no consumers"),
            Self::Postgres(client) => client.settle().await,
            Self::Redis(client) => client.settle(queue).await,
        }
    }

    /// Messages in the queue, leased ones included.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn depth(&mut self, queue: usize) -> Result<u64> {
        match self {
            Self::Capstan(client) => client.depth(queue).await,
            Self::Ceiling(client) => Ok(client.stats().await?.appended),
            Self::Postgres(client) => client.depth().await,
            Self::Redis(client) => client.depth(queue).await,
        }
    }
}
