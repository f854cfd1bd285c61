//! `cargo xtask bench`: builds the release broker, sidecar and benchmark, installs the peers that are missing, and runs it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::{compile, repo, run, setup};

/// What is measured; see docs/performance.md.
#[derive(clap::Args)]
pub struct Args {
    /// Only these rows: publish, consume, end-to-end, latency, sidecar, backlog, queues, start, long. All but `long` when none is given.
    #[arg(long)]
    rows: Option<String>,
    /// Capstan's peers: redis, redis-steady (no rewrites of its log), postgres, ceiling. All when none is given.
    #[arg(long)]
    peers: Option<String>,
    /// Rounds: 5, or 3 when quick.
    #[arg(long)]
    rounds: Option<u32>,
    /// One second instead of three for each measurement, and a quarter of each backlog.
    #[arg(long)]
    quick: bool,
    /// Longest wait for a quiet machine before a measurement, in seconds.
    #[arg(long)]
    quiet: Option<u64>,
    /// Servers keep their data in a folder of their own in here while they are measured: on a real disk; `target` when absent.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Writes every sample here, as JSON.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Writes the tables into docs/performance.md.
    #[arg(long)]
    write: bool,
}

impl Args {
    /// Builds, installs, measures.
    ///
    /// # Errors
    /// Something cannot be built or installed, or a server fails.
    pub fn run(&self) -> Result<()> {
        let mut progress = Progress::new(3);
        progress.step("peers");
        let has = |peer: &str| self.peers.as_ref().is_none_or(|peers| peers.contains(peer));
        setup::peers(has("redis"), has("postgres"), &mut progress)?;
        progress.step("release build");
        let programs = Programs {
            broker: build("capstan-broker", &mut progress)?,
            sidecar: build("capstan-sidecar", &mut progress)?,
        };
        let bench = build("bench", &mut progress)?;
        progress.step("measurements");
        let mut command = Command::new(bench);
        command.args(self.arguments(programs));
        let mut said = Vec::new();
        let status = run::listen(&mut command, |event| match event {
            run::Event::Out(line) => println!("{line}"),
            run::Event::Err(line) => said.push(line.to_owned()),
            run::Event::Tick => {}
        })?;
        run::ensure(&command, status, &said)
    }

    fn arguments(&self, programs: Programs) -> Vec<std::ffi::OsString> {
        let folder = self.folder.clone().unwrap_or_else(repo::target);
        let document = self.write.then(|| repo::root().join("docs/performance.md").into());
        let options = [
            ("--broker", Some(programs.broker.into())),
            ("--sidecar", Some(programs.sidecar.into())),
            ("--folder", Some(folder.into())),
            ("--rows", self.rows.as_ref().map(Into::into)),
            ("--peers", self.peers.as_ref().map(Into::into)),
            ("--rounds", self.rounds.map(|rounds| rounds.to_string().into())),
            ("--quiet", self.quiet.map(|quiet| quiet.to_string().into())),
            ("--output", self.output.as_ref().map(Into::into)),
            ("--write", document),
        ];
        let mut arguments = vec!["run".into()];
        for (name, value) in options {
            arguments.extend(value.into_iter().flat_map(|value| [name.into(), value]));
        }
        arguments.extend(self.quick.then(|| "--quick".into()));
        arguments
    }
}

/// What is measured, built for release.
struct Programs {
    broker: PathBuf,
    sidecar: PathBuf,
}

/// Builds a package for release and answers where its program is.
fn build(package: &str, progress: &mut Progress) -> Result<PathBuf> {
    let built = compile::cargo(&["build", "--release", "--package", package, "--bins"], progress)?;
    let program = built.into_iter().find(|built| built.package == package);
    Ok(program.with_context(|| format!("cargo built no program of {package}"))?.path)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn only_what_was_given_is_handed_on() {
        let arguments = |line: &[&str]| {
            let args = Line::parse_from([&["x", "--folder", "/f"], line].concat()).args;
            let words = args
                .arguments(Programs { broker: "/b".into(), sidecar: "/s".into() })
                .into_iter()
                .map(|word| word.into_string().unwrap());
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(arguments(&[]), "run --broker /b --sidecar /s --folder /f");
        let all = ["--rows", "publish,long", "--rounds", "2", "--quick", "-o", "out.json"];
        let handed_on = "run --broker /b --sidecar /s --folder /f --rows publish,long --rounds 2 --output out.json --quick";
        assert_eq!(arguments(&all), handed_on);
        assert!(arguments(&["--write"]).ends_with("docs/performance.md"));
    }
}
