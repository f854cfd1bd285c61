//! The command line of `capstan dev`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Run the Queues and Consumers of YAML files on this machine, without a cluster
///
/// Starts a broker with its HTTP API and, for each Consumer with a targetRef, the sidecar's loop: it hands batches to the
/// application that listens on 127.0.0.1 at the Consumer's endpoint.port. Shows what happens, until Ctrl-C. Without such a
/// Consumer it is simply a broker. Messages stay in the data folder and are there at the next start.
///
/// The files are those you apply to a cluster. They are checked by the same rules, and dead-letter queues are created by
/// being named. Deployments and all else are left alone: --app starts your application.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capstan dev examples/quickstart --app 'node server.js'
  capstan dev queue.yaml consumer.yaml --app-port 3000
  capstan dev queues.yaml --send orders '{\"id\": 1}'
  kustomize build . | capstan dev -

Ctrl-C finishes the open calls, ends the application and exits with code 0; a second Ctrl-C ends at once, with 130.
CAPSTAN_LOG=debug shows the log of broker and sidecar too.")]
pub(crate) struct DevArgs {
    /// YAML files, or folders of them; `-` is standard input.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Address of the HTTP API; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9796")]
    pub(crate) listen: SocketAddr,
    /// Port of the gateway on localhost, where applications send as they do beside a sidecar; 0 takes any free one. Default:
    /// 9797, or any free one when another program has that or --listen has port 0.
    #[arg(long, value_name = "PORT")]
    pub(crate) gateway_port: Option<u16>,
    /// Folder in which messages are kept; made when it is missing.
    #[arg(long, value_name = "DIR", default_value = ".capstan")]
    pub(crate) data: PathBuf,
    /// Start the application with this shell command, and again when it ends. Its environment has PORT, where to listen,
    /// CAPSTAN_GATEWAY_URL, where to send, and CAPSTAN_URL, the broker's address.
    #[arg(long, value_name = "CMD")]
    pub(crate) app: Option<String>,
    /// The application's port here, instead of each Consumer's endpoint.port. With --app, 0 takes any free one.
    #[arg(long, value_name = "PORT")]
    pub(crate) app_port: Option<u16>,
    /// Send a JSON message once the broker runs; may be given several times.
    #[arg(long, num_args = 2, value_names = ["QUEUE", "BODY"])]
    pub(crate) send: Vec<String>,
}
