//! Runs every pattern with every scaler, and prints or writes what came of it.
#![allow(unreachable_pub, reason = "nothing in a program can be reached from outside")]

mod arrivals;
mod capstan;
mod document;
mod hpa;
mod keda;
mod plot;
mod run;
mod table;
mod world;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Compares how Capstan, KEDA and the HPA scale the same consumers.
#[derive(Parser)]
struct Args {
    /// How to print what was measured.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Writes docs/scaling.md and its plots in the checkout at this folder.
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[allow(clippy::print_stdout)]
fn main() -> Result<()> {
    let args = Args::parse();
    let results = run::all();
    if let Some(root) = &args.write {
        for (path, text) in document::files(root, &results)? {
            std::fs::create_dir_all(path.parent().unwrap_or(root))?;
            std::fs::write(path, text)?;
        }
    }
    match args.output {
        Output::Table => print!("{}", table::tables(&results)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&results)?),
    }
    Ok(())
}
