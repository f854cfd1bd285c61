//! The program `capstan`: local mode, and a client of any broker.

mod client;
mod dev;
mod failure;
mod files;
mod inject;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{EXIT_USAGE, Failure};

/// Capstan: message queues in your Kubernetes cluster, and on this machine.
#[derive(Debug, Parser)]
#[command(name = "capstan", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 refused or no answer, 64 the command line is wrong.
Environment: CAPSTAN_URL and CAPSTAN_NAMESPACE stand for --url and --namespace.";

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::DevArgs),
    Send(client::SendArgs),
    Pull(client::PullArgs),
    Ack(client::AckArgs),
    Retry(client::RetryArgs),
    Peek(client::PeekArgs),
    Queues(client::QueuesArgs),
    Inject(inject::InjectArgs),
    Uninject(inject::UninjectArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    // Each delivery is a connection, and each connection an open file.
    capstan_broker::descriptors::raise();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Nothing is left to do when a text cannot be written.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Dev(args) => dev::run(args).await,
        Command::Send(args) => client::send(args).await,
        Command::Pull(args) => client::pull(args).await,
        Command::Ack(args) => client::ack(args).await,
        Command::Retry(args) => client::retry(args).await,
        Command::Peek(args) => client::peek(args).await,
        Command::Queues(args) => client::queues(args).await,
        Command::Inject(args) => inject::inject(&args),
        Command::Uninject(args) => inject::uninject(&args),
    };
    result.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}
