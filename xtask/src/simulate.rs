//! `cargo xtask simulate`: scaling beside KEDA and the HPA, on a model of pods.

use std::ffi::OsString;

use anyhow::{Context, Result, ensure};

use crate::repo;

/// What is simulated; see docs/scaling.md.
#[derive(clap::Args)]
pub struct Args {
    /// How to print what was measured: table, json.
    #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
    output: String,
    /// Writes the tables into docs/scaling.md, and the plots beside it.
    #[arg(long)]
    write: bool,
}

impl Args {
    /// Builds the simulation, and runs it for a few seconds.
    ///
    /// # Errors
    /// It does not compile, or a file cannot be written.
    pub fn run(&self) -> Result<()> {
        let mut command = repo::cargo();
        command.args(["run", "--quiet", "--package", "scaling-simulation", "--"]).args(self.arguments());
        let status = command.status().context("cargo does not start")?;
        ensure!(status.success(), "the simulation failed: {status}");
        Ok(())
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["--output".into(), self.output.clone().into()];
        if self.write {
            arguments.extend(["--write".into(), repo::root().into()]);
        }
        arguments
    }
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
    fn what_was_given_is_handed_on() {
        let arguments =
            |line: &[&str]| Line::try_parse_from([&["x"], line].concat()).map(|line| line.args.arguments());
        assert_eq!(arguments(&[]).unwrap(), ["--output", "table"]);
        assert_eq!(arguments(&["-o", "json"]).unwrap(), ["--output", "json"]);
        assert_eq!(arguments(&["--write"]).unwrap().last(), Some(&repo::root().into()));
        assert!(arguments(&["-o", "yaml"]).is_err());
    }
}
