//! Why a command failed, and the exit code that says so.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use capstan_api::ClientError;

/// The exit code of a wrong command line, as in sysexits.h.
pub(crate) const EXIT_USAGE: u8 = 64;
const EXIT_REFUSED: u8 = 1;
/// As a shell reports a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// Anything else; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// Ended at once, as asked.
    #[error("ended at once; open calls were cut, and their messages are delivered again")]
    Interrupted,
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// A failure of a request to the broker at `url`.
    pub(crate) fn of_client(error: &ClientError, url: &str) -> Self {
        match error {
            ClientError::Address(_) => Self::Usage(format!("--url: {error}")),
            ClientError::Transport(_) => Self::Refused(format!(
                "{error}\nIs a broker at {url}? `capstan dev` starts one; --url or CAPSTAN_URL names another."
            )),
            _ => Self::Refused(error.to_string()),
        }
    }

    /// Says it, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        // A reader that has seen enough, such as `head`, is no failure.
        if let Self::Output(error) = &self
            && error.kind() == ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS;
        }
        // Nothing is left to do when this cannot be written.
        let _ = writeln!(std::io::stderr(), "capstan: {self}");
        ExitCode::from(match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::Refused(_) | Self::Output(_) => EXIT_REFUSED,
        })
    }
}
