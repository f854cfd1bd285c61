//! The program behind `cargo xtask bench`, which is also the HTTP ceiling that it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench::{ceiling, machine, report, run};
use clap::Parser;

/// Measures Capstan beside its peers.
#[derive(Parser)]
enum Command {
    /// Starts the servers, measures, and prints the tables.
    Run(run::Args),
    /// Serves the smallest honest HTTP publisher.
    Ceiling {
        #[arg(long)]
        listen: SocketAddr,
        /// Where messages are appended.
        #[arg(long)]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match execute(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    match command {
        // One thread: servers get the rest of the machine, and every peer has the same client.
        Command::Run(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(measure(&args))
        }
        Command::Ceiling { listen, file } => {
            tokio::runtime::Runtime::new()?.block_on(ceiling::serve(listen, &file))
        }
    }
}

async fn measure(args: &run::Args) -> Result<()> {
    let place = args.place()?;
    // Says what is missing before anything is measured.
    machine::facts(&place, &args.peers(), &[])?;
    let samples = run::run(args).await?;
    let mut facts = machine::facts(&place, &args.peers(), &samples)?;
    if args.quick {
        facts += "A quick run: one second for each measurement, and a quarter of the backlogs that the rows name.\n";
    }
    let tables = report::markdown(&samples);
    println!("\n{facts}\n{tables}");
    if let Some(path) = &args.output {
        let text = serde_json::to_vec_pretty(&samples)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match &args.write {
        Some(document) => report::write(document, &format!("{facts}\n{tables}")),
        None => Ok(()),
    }
}
