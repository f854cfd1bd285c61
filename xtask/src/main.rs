//! The repository's own commands: `cargo xtask COMMAND`.
#![allow(unreachable_pub, reason = "nothing in a program can be reached from outside")]

mod bench;
mod cluster;
mod compile;
mod generate;
mod images;
mod interrupt;
mod progress;
mod repo;
mod run;
mod setup;
mod simulate;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Builds, tests and generates what is in this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Runs the tests of every level, and prepares what they need.
    Test(test::Args),
    /// Installs or builds what the tests need and this machine lacks.
    Setup(setup::Args),
    /// Builds container images as archives, without a container engine.
    Images(images::Args),
    /// Starts a Kubernetes of its own on this machine, and more.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Measures Capstan beside Redis, PostgreSQL and a bare HTTP server.
    Bench(bench::Args),
    /// Simulates scaling beside KEDA and the HPA.
    Simulate(simulate::Args),
    /// Writes the files that are generated from the Rust types.
    Generate,
}

fn main() -> ExitCode {
    match execute(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode> {
    interrupt::watch()?;
    match command {
        Command::Test(args) => return args.run(),
        Command::Setup(args) => args.run()?,
        Command::Images(args) => args.run()?,
        Command::Cluster(command) => command.run()?,
        Command::Bench(args) => args.run()?,
        Command::Simulate(args) => args.run()?,
        Command::Generate => generate::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
