//! PostgreSQL: synced before each commit is confirmed. It refuses to run as root, and then runs as `nobody`.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Place;
use crate::client::connect_postgres;

/// Ends it at once, its children too.
pub(super) const END: rustix::process::Signal = rustix::process::Signal::QUIT;

/// Debian keeps the programs out of the search path.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Copies a fresh database into the folder; the first one is made.
pub(super) fn prepare(place: &Place, folder: &Path) -> Result<()> {
    let template = place.folder.join("postgres-template");
    if !template.join("PG_VERSION").exists() {
        std::fs::create_dir_all(&template)?;
        give(&template)?;
        let mut initdb = demoted(&program("initdb")?)?;
        initdb.args(["--no-sync", "--auth=trust", "--username=bench", "--encoding=UTF8", "--locale=C", "-D"]);
        finish(initdb.arg(&template))?;
    }
    give(folder)?;
    finish(Command::new("cp").arg("-a").arg(&template).arg(folder.join("data")))
}

pub(super) fn command(folder: &Path, listen: SocketAddr) -> Result<Command> {
    let mut command = demoted(&program("postgres")?)?;
    command.arg("-D").arg(folder.join("data")).args(["-h", &listen.ip().to_string()]);
    command.args(["-p", &listen.port().to_string(), "-k", ""]);
    for setting in
        ["fsync=on", "synchronous_commit=on", "shared_buffers=1GB", "max_wal_size=4GB", "max_connections=200"]
    {
        command.args(["-c", setting]);
    }
    Ok(command)
}

pub(super) async fn declare(address: SocketAddr) -> Result<()> {
    Ok(connect_postgres(address).await?.batch_execute(crate::client::POSTGRES_SCHEMA).await?)
}

pub(super) async fn syncs(address: SocketAddr) -> Result<u64> {
    let client = connect_postgres(address).await?;
    let row = client.query_one("SELECT wal_sync FROM pg_stat_wal", &[]).await?;
    Ok(u64::try_from(row.get::<_, i64>(0))?)
}

/// Where a program of PostgreSQL is: the newest that Debian installed, or what the search path has.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|entry| entry.path().join("bin").join(name)).filter(|path| path.is_file()).collect();
    found.sort();
    if let Some(path) = found.pop() {
        return Ok(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("there is no `{name}`: install PostgreSQL, or leave it out with --peers"))
}

/// A command that does not run as root.
fn demoted(program: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir("/");
    if rustix::process::geteuid().is_root() {
        let (user, group) = nobody()?;
        command.uid(user).gid(group);
    }
    Ok(command)
}

fn give(folder: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        let (user, group) = nobody()?;
        std::os::unix::fs::chown(folder, Some(user), Some(group))?;
    }
    Ok(())
}

fn nobody() -> Result<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find(|fields| fields.first() == Some(&"nobody") && fields.len() > 3);
    let found = found.context("there is no user `nobody` for PostgreSQL")?;
    Ok((found[2].parse()?, found[3].parse()?))
}

fn finish(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?} failed: {text}", command.get_program());
    Ok(())
}
