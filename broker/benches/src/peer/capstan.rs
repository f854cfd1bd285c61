//! The broker: its command line, its queues through the control API, its count of syncs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use capstan_api::ControlClient;
use capstan_api::Name;
use capstan_api::control::{ConsumerPolicy, Declaration, PushPolicy, QueuePolicy};

use crate::client::Http;

pub(super) const NAMESPACE: &str = "bench";
const SYNCED: &str = "capstan_store_commits_total{durability=\"synced\"} ";

pub(super) fn command(broker: &Path, folder: &Path, listen: SocketAddr, admin: SocketAddr) -> Command {
    let mut command = Command::new(broker);
    command.args(["--listen", &listen.to_string(), "--admin-listen", &admin.to_string(), "--data"]);
    command.arg(folder.join("data"));
    as_it_comes(&mut command);
    command
}

/// Takes away what would configure a program of Capstan's.
pub(super) fn as_it_comes(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CAPSTAN_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
}

pub(super) async fn is_ready(listen: SocketAddr, admin: Option<SocketAddr>) -> Result<()> {
    Http::connect(listen).await?;
    Http::connect(admin.context("no admin port")?).await.map(drop)
}

/// Declares the queues, with a pull consumer unless `push` says how they are pushed.
pub(super) async fn declare(
    admin: Option<SocketAddr>,
    queues: usize,
    push: Option<PushPolicy>,
) -> Result<()> {
    let admin = admin.context("no admin port")?;
    let queues: Result<Vec<QueuePolicy>> = (0..queues).map(|queue| policy(queue, push.clone())).collect();
    let declaration = Declaration { revision: "bench".to_owned(), declarer: String::new(), queues: queues? };
    ControlClient::new(&format!("http://{admin}"))?.declare(&declaration).await?;
    Ok(())
}

fn policy(queue: usize, push: Option<PushPolicy>) -> Result<QueuePolicy> {
    let consumer = ConsumerPolicy {
        name: Name::new("bench")?,
        push,
        max_retries: 3,
        retry_delay_ms: 0,
        retry_backoff: None,
        max_concurrency: None,
        dead_letter_queue: None,
        visibility_timeout_ms: 60_000,
        paused: false,
    };
    Ok(QueuePolicy {
        namespace: Name::new(NAMESPACE)?,
        name: Name::new(format!("q{queue}"))?,
        delivery_paused: false,
        delivery_delay_ms: 0,
        retention_ms: 24 * 3_600_000,
        max_message_bytes: 128_000,
        max_bytes: None,
        max_messages: None,
        consumer: Some(consumer),
        resource: String::new(),
        purged_by: None,
    })
}

pub(super) async fn syncs(admin: Option<SocketAddr>) -> Result<u64> {
    let mut http = Http::connect(admin.context("no admin port")?).await?;
    let head = http.head("GET", "/metrics");
    read(std::str::from_utf8(http.call(&head, b"").await?)?)
}

fn read(metrics: &str) -> Result<u64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(SYNCED));
    line.context("no count of synced commits among the metrics")?.parse().context("not a count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_found_among_the_metrics() {
        let text = "# TYPE x counter\ncapstan_store_commits_total{durability=\"buffered\"} 7\n\
                    capstan_store_commits_total{durability=\"synced\"} 12\n";
        assert_eq!(read(text).unwrap(), 12);
        read("nothing 1").unwrap_err();
    }
}
