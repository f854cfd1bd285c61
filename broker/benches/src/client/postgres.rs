//! A queue in PostgreSQL: a table, `FOR UPDATE SKIP LOCKED`, a time until which a message is leased, then a delete.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls, Statement};

use crate::message::{self, Stamp};

/// The table.
pub const SCHEMA: &str = "CREATE TABLE q (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, vt timestamptz NOT NULL, reads int NOT NULL DEFAULT 0,
    body bytea NOT NULL); CREATE INDEX ON q (vt)";
const ONE: &str = "INSERT INTO q (vt, body) VALUES (clock_timestamp(), $1)";
const MANY: &str = "INSERT INTO q (vt, body) SELECT clock_timestamp(), unnest($1::bytea[])";
const TAKE: &str = "UPDATE q SET vt = clock_timestamp() + interval '60 s', reads = reads + 1 WHERE id IN (
    SELECT id FROM q WHERE vt <= clock_timestamp() ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING id, body";
const SETTLE: &str = "DELETE FROM q WHERE id = ANY($1)";
/// How often a waiting consumer looks again.
const POLL: Duration = Duration::from_millis(1);

/// A connection.
pub struct Postgres {
    client: Client,
    one: Statement,
    many: Statement,
    take: Statement,
    settle: Statement,
    ids: Vec<i64>,
}

/// Connects without preparing anything.
///
/// # Errors
/// Nobody listens.
pub async fn connect(address: SocketAddr) -> Result<Client> {
    let target = format!("host={} port={} user=bench dbname=postgres", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&target, NoTls).await?;
    // Its error is that of the request which it fails.
    tokio::spawn(connection);
    Ok(client)
}

impl Postgres {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let client = connect(address).await?;
        let (one, many) = (client.prepare(ONE).await?, client.prepare(MANY).await?);
        let (take, settle) = (client.prepare(TAKE).await?, client.prepare(SETTLE).await?);
        Ok(Self { client, one, many, take, settle, ids: Vec::new() })
    }

    pub async fn publish(&mut self, stamps: &[Stamp]) -> Result<()> {
        let body = |stamp: &Stamp| {
            let mut body = Vec::with_capacity(message::BODY_BYTES);
            message::write(*stamp, &mut body);
            body
        };
        let bodies: Vec<Vec<u8>> = stamps.iter().map(body).collect();
        let stored = match bodies.as_slice() {
            [body] => self.client.execute(&self.one, &[body]).await?,
            _ => self.client.execute(&self.many, &[&bodies]).await?,
        };
        ensure!(stored == stamps.len() as u64, "{stored} of {} messages were stored", stamps.len());
        Ok(())
    }

    pub async fn take(&mut self, most: usize, idle: Duration) -> Result<Vec<Stamp>> {
        let (most, until) = (i64::try_from(most)?, Instant::now() + idle);
        loop {
            let rows = self.client.query(&self.take, &[&most]).await?;
            self.ids = rows.iter().map(|row| row.get(0)).collect();
            if !rows.is_empty() || Instant::now() >= until {
                return rows.iter().map(|row| message::read(row.get(1))).collect();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub async fn settle(&mut self) -> Result<()> {
        let deleted = self.client.execute(&self.settle, &[&self.ids]).await?;
        ensure!(deleted == self.ids.len() as u64, "{deleted} of {} messages were deleted", self.ids.len());
        Ok(())
    }

    pub async fn depth(&mut self) -> Result<u64> {
        let row = self.client.query_one("SELECT count(*) FROM q", &[]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0))?)
    }
}
