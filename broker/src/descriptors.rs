//! File descriptors: as many as the system allows, and their division between connections and the store.
//!
//! A store that cannot open a file ends the broker; a connection that is refused ends a request.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit is raised so far and no further: a process that `capstan dev` starts inherits it.
const RAISED_MAX: u64 = 32_768;
/// Most descriptors kept from connections, for the store and what else the process opens.
const RESERVE_MAX: u64 = 1024;
/// Descriptors kept from connections where there are twice as many.
const RESERVE: u64 = 256;
/// Most connections of both ports: each may hold a request's head and a task.
const CONNECTIONS_MAX: u64 = 10_000;
/// Most connections of the admin port.
const ADMIN_MAX: u64 = 64;
/// Most files of the store that are kept open.
const STORE_FILES_MAX: u64 = 900;
/// The fewest that the storage engine takes.
const STORE_FILES_MIN: u64 = 10;

/// How the descriptors are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections of the HTTP API.
    pub(crate) api: usize,
    /// Connections of the admin port: clients cannot take them from probes and the operator.
    pub(crate) admin: usize,
    /// Files of the store that are kept open; others are opened as they are read.
    pub(crate) store: usize,
}

/// Raises the limit of open files from the soft to the hard one, up to 32,768. Without the right to, all stays as it is.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(RAISED_MAX).min(RAISED_MAX);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        tracing::warn!(%error, wanted, "the limit of open files cannot be raised");
    }
}

/// The division of this process's limit.
pub(crate) fn shares() -> Shares {
    divide(getrlimit(Resource::Nofile).current.unwrap_or(RAISED_MAX))
}

fn divide(limit: u64) -> Shares {
    let reserve = (limit / 4).clamp(RESERVE, RESERVE_MAX).min(limit / 2);
    let connections = (limit - reserve).min(CONNECTIONS_MAX);
    let admin = (connections / 4).min(ADMIN_MAX);
    // Half of the reserve is left to compaction, the journal and the log.
    let store = (reserve / 2).clamp(STORE_FILES_MIN, STORE_FILES_MAX);
    let count = |n: u64| usize::try_from(n.max(1)).unwrap_or(usize::MAX);
    Shares { api: count(connections - admin), admin: count(admin), store: count(store) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_take_what_the_store_needs() {
        assert_eq!(divide(1024), Shares { api: 704, admin: 64, store: 128 });
        assert_eq!(divide(64), Shares { api: 24, admin: 8, store: 16 });
        assert_eq!(divide(1 << 20), Shares { api: 9936, admin: 64, store: 512 });
        for limit in 40..5000 {
            let shares = divide(limit);
            // The store's open files, and as many again for what else it opens.
            let all = shares.api + shares.admin + 2 * shares.store;
            assert!(all as u64 <= limit, "{limit}: {shares:?}");
        }
    }
}
