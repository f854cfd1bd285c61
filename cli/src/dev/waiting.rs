//! Who waits for an application: several workloads may wait for the same ports, and it is said once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many wait, by ports.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<BTreeMap<String, usize>>>);

/// One who waits, until this is dropped.
#[derive(Debug)]
pub(super) struct Waits {
    all: Waiting,
    ports: String,
}

impl Waiting {
    /// Waits for `ports`; also says whether nobody else does.
    pub(super) fn begin(&self, ports: &str) -> (Waits, bool) {
        let mut all = self.lock();
        let count = all.entry(ports.to_owned()).or_default();
        *count += 1;
        (Waits { all: self.clone(), ports: ports.to_owned() }, *count == 1)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.ports) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.ports);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_those_who_wait_for_the_same_says_so() {
        let waiting = Waiting::default();
        let (first, says) = waiting.begin("8080");
        assert!(says);
        let (second, says) = waiting.begin("8080");
        assert!(!says);
        assert!(waiting.begin("8081").1, "others");
        drop(first);
        assert!(!waiting.begin("8080").1, "one still waits");
        drop(second);
        assert!(waiting.begin("8080").1, "again");
    }
}
