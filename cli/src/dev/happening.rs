//! What happens in local mode, as the view is told.

use std::time::Duration;

use capstan_sidecar::Event;

/// Something to show.
#[derive(Debug)]
pub(super) enum Happening {
    /// A sidecar says so.
    Sidecar(Event),
    /// The view was too slow for so many events of a sidecar.
    Missed(u64),
    /// Nothing is delivered until the application listens.
    Waiting { ports: String },
    /// The application wrote a line.
    Line(String),
    /// The application ended; it is started again after `wait`.
    Exited { how: String, wait: Duration },
    /// Something went wrong; also what the application said that has no effect.
    Warning(String),
    /// The first Ctrl-C.
    Ending,
}
