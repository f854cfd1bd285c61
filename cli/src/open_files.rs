//! How many files this process may have open. Connections are files, and each delivery has one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit is raised so far and no further: the application that `capstan dev` starts inherits it.
const RAISED_MAX: u64 = 32_768;

/// Takes as many as this user may have: the usual limit is low for the sake of programs that use select(2).
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(RAISED_MAX).min(RAISED_MAX);
    if current.is_some_and(|current| current < wanted) {
        // Where it is refused, things go on with fewer, and what needs more says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}
