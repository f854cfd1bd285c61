//! Reads and checks what is to run, in a thread of its own: standard input may take any time, and many objects some.

use tokio::sync::oneshot;

use super::args::DevArgs;

use super::plan::{self, Plan};
use super::seed::{self, Seed};
use crate::failure::Failure;
use crate::files;

/// The plan and the messages to send.
///
/// The thread is no task of the runtime, which would wait for it at the end of the program.
pub(super) async fn prepare(args: &DevArgs) -> Result<(Plan, Vec<Seed>), Failure> {
    let (paths, sends) = (args.files.clone(), args.send.clone());
    let (sender, prepared) = oneshot::channel();
    std::thread::Builder::new().name("prepare".to_owned()).spawn(move || {
        let made = files::read(&paths).and_then(|documents| plan::make(&documents)).and_then(|plan| {
            let seeds = seed::check(&plan, &sends)?;
            Ok((plan, seeds))
        });
        // Nobody waits for it after a signal.
        let _ = sender.send(made);
    })?;
    prepared.await.unwrap_or_else(|_| Err(Failure::Refused("the files could not be read: a bug".to_owned())))
}
