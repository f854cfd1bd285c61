//! The servers: started in an empty folder on a free port of this machine, and ended by their process id.

mod capstan;
mod postgres;
mod redis;
mod sidecar;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cell::Consumers;
use crate::client::Client;
use crate::process::Process;

use sidecar::Sidecar;

/// A start that takes longer has failed; a million messages are read in it.
const START_MAX: Duration = Duration::from_secs(120);
/// How often a starting server is asked.
const ASK: Duration = Duration::from_millis(2);

/// What is measured.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    Capstan,
    /// `appendfsync always`, the rest as it comes.
    Redis,
    /// The same without rewrites of its log.
    RedisSteady,
    Postgres,
    Ceiling,
}

impl Peer {
    /// As tables name it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Capstan => "Capstan",
            Self::Redis => "Redis",
            Self::RedisSteady => "Redis, no rewrites",
            Self::Postgres => "PostgreSQL",
            Self::Ceiling => "HTTP ceiling",
        }
    }
}

/// Where programs are, and what is the same for all servers of a run.
pub struct Place {
    /// The release build of `capstan-broker`.
    pub broker: PathBuf,
    /// The release build of `capstan-sidecar`.
    pub sidecar: PathBuf,
    /// Folders of servers are made in this one.
    pub folder: PathBuf,
}

/// A server that serves. Killed when dropped.
pub struct Server {
    pub peer: Peer,
    pub address: SocketAddr,
    /// Capstan's port for metrics and control.
    admin: Option<SocketAddr>,
    folder: PathBuf,
    process: Process,
    /// Capstan's, where one consumes.
    sidecar: Option<Sidecar>,
    queues: usize,
}

impl Server {
    /// Starts a server over an empty folder, with so many empty queues.
    ///
    /// # Errors
    /// It does not start; the error repeats its log.
    pub async fn start(peer: Peer, place: &Place, queues: usize) -> Result<Self> {
        let folder = place.folder.join("server");
        remove(&folder)?;
        std::fs::create_dir_all(&folder)?;
        if peer == Peer::Postgres {
            postgres::prepare(place, &folder)?;
        }
        let server = Self::spawn(peer, place, folder, queues).await?;
        let made = match peer {
            Peer::Capstan => capstan::declare(server.admin, queues, None).await,
            Peer::Redis | Peer::RedisSteady => redis::declare(server.address, queues).await,
            Peer::Postgres => postgres::declare(server.address).await,
            Peer::Ceiling => Ok(()),
        };
        made.with_context(|| format!("cannot make the queues of {}:\n{}", peer.title(), server.log()))?;
        Ok(server)
    }

    /// Kills the server (SIGKILL) and starts it over what it stored; answers how long that took until it served.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(mut self, place: &Place) -> Result<(Self, Duration)> {
        self.process.end()?;
        let (peer, folder, queues) = (self.peer, self.folder.clone(), self.queues);
        drop(self);
        let begun = Instant::now();
        let server = Self::spawn(peer, place, folder, queues).await?;
        Ok((server, begun.elapsed()))
    }

    async fn spawn(peer: Peer, place: &Place, folder: PathBuf, queues: usize) -> Result<Self> {
        let address = free_address()?;
        let admin = if peer == Peer::Capstan { Some(free_address()?) } else { None };
        let mut command = match (peer, admin) {
            (Peer::Capstan, Some(admin)) => capstan::command(&place.broker, &folder, address, admin),
            (Peer::Redis, _) => redis::command(&folder, address, true),
            (Peer::RedisSteady, _) => redis::command(&folder, address, false),
            (Peer::Postgres, _) => postgres::command(&folder, address)?,
            _ => ceiling(&folder, address)?,
        };
        let log = std::fs::File::create(folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let signal = if peer == Peer::Postgres { postgres::END } else { rustix::process::Signal::KILL };
        let process = Process::spawn(&mut command, signal)?;
        let mut server = Self { peer, address, admin, folder, process, sidecar: None, queues };
        server.ready().await?;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let asked = match self.peer {
                // Its tables may not be there yet.
                Peer::Postgres => crate::client::connect_postgres(self.address).await.map(drop),
                Peer::Capstan => capstan::is_ready(self.address, self.admin).await,
                _ => self.depth().await.map(drop),
            };
            let Err(error) = asked else { return Ok(()) };
            if self.process.has_ended()? || Instant::now() > deadline {
                bail!("{} does not start ({error:#}):\n{}", self.peer.title(), self.log());
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// A connection for the producer or consumer of this number.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn connect(&self, number: usize) -> Result<Client> {
        let connected = Client::connect(self.peer, self.address, number).await;
        connected.with_context(|| format!("cannot connect to {}:\n{}", self.peer.title(), self.log()))
    }

    /// Messages in all queues.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn depth(&self) -> Result<u64> {
        let mut client = self.connect(0).await?;
        let mut depth = 0;
        for queue in 0..self.queues {
            depth += client.depth(queue).await?;
        }
        Ok(depth)
    }

    /// Syncs since its start, where the server counts them.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn syncs(&self) -> Result<Option<u64>> {
        Ok(match (self.peer, self.connect(0).await?) {
            (Peer::Capstan, _) => Some(capstan::syncs(self.admin).await?),
            (Peer::Postgres, _) => Some(postgres::syncs(self.address).await?),
            (_, Client::Ceiling(mut client)) => Some(client.stats().await?.syncs),
            _ => None,
        })
    }

    /// From now on a sidecar hands what is in Capstan's queues to the application at `application`.
    ///
    /// # Errors
    /// The broker refuses, or the program cannot be started. It may still end by itself; see [`Self::sidecar_log`].
    pub async fn start_sidecar(
        &mut self,
        place: &Place,
        application: SocketAddr,
        consumers: Consumers,
    ) -> Result<()> {
        let push = sidecar::policy(application, consumers)?;
        capstan::declare(self.admin, self.queues, Some(push)).await?;
        self.sidecar = Some(Sidecar::start(&place.sidecar, &self.folder, self.address)?);
        Ok(())
    }

    /// Processor seconds of all its processes, a sidecar's included.
    pub fn cpu(&self) -> f64 {
        self.process.cpu() + self.sidecar.as_ref().map_or(0.0, Sidecar::cpu)
    }

    /// Bytes of memory of the server's processes, without a sidecar's.
    pub fn memory(&self) -> u64 {
        self.process.memory()
    }

    /// The end of the sidecar's log, if there is a sidecar.
    pub fn sidecar_log(&self) -> Option<String> {
        self.sidecar.as_ref().map(Sidecar::log)
    }

    /// Bytes of its folder on the disk.
    pub fn disk_bytes(&self) -> u64 {
        bytes(&self.folder)
    }

    fn log(&self) -> String {
        tail(&self.folder.join("log"))
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}

impl Drop for Server {
    fn drop(&mut self) {
        // What it stored is of no use to anyone; a restart has its own `Server`, over the same folder.
        let _gone = self.process.end();
    }
}

/// Removes a folder, if it is there.
///
/// # Errors
/// The system refuses.
pub fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The version of each server, by its own word.
///
/// # Errors
/// A program is missing; says how to get it.
pub fn version(peer: Peer, place: &Place) -> Result<String> {
    let program = match peer {
        Peer::Capstan => place.broker.clone(),
        Peer::Redis | Peer::RedisSteady => PathBuf::from("redis-server"),
        Peer::Postgres => postgres::program("postgres")?,
        Peer::Ceiling => return Ok("axum 0.8".to_owned()),
    };
    let output = Command::new(&program).arg("--version").output();
    let output = output.with_context(|| {
        format!("cannot run {}: `cargo xtask bench` installs what is missing", program.display())
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_version = |word: &&str| word.trim_start_matches("v=").starts_with(|c: char| c.is_ascii_digit());
    let word = text.split_whitespace().find(is_version).unwrap_or("unknown");
    Ok(word.trim_start_matches("v=").to_owned())
}

/// This program again, as the ceiling.
fn ceiling(folder: &Path, address: SocketAddr) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["ceiling", "--listen", &address.to_string(), "--file"]).arg(folder.join("messages"));
    Ok(command)
}

/// A port that nobody used a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes(&entry.path()),
        Ok(data) => std::os::unix::fs::MetadataExt::blocks(&data) * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}
