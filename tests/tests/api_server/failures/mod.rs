//! What fails around the operator, or the operator itself, while objects change: it converges all the same, restarts no
//! workload a second time, deletes nothing, and asks no more than it should.

mod clock;
mod kills;
mod refusals;
mod server;
mod shop;

use std::time::Instant;

use crate::field::{Count, Field};

/// Requests per second that are no hot loop.
const REQUESTS_PER_SECOND: f64 = 40.0;
/// Requests that the change of an object may lead to: its own status and that of what it concerns, and once more.
const REQUESTS_PER_OBJECT: usize = 12;

/// What was asked since a moment.
struct Window {
    start: Instant,
    count: Count,
}

impl Window {
    fn open(field: &Field) -> Self {
        Self { start: Instant::now(), count: field.proxy.count() }
    }

    /// Checks that what was asked since follows from changes of so many objects.
    fn close(self, field: &Field, what: &str, objects: usize) {
        let (count, seconds) = (field.proxy.count().since(&self.count), self.start.elapsed().as_secs_f64());
        println!("{what}: {seconds:.1} s; {count}");
        let all = count.of(|_| true);
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let most = (objects * REQUESTS_PER_OBJECT) as f64 + seconds * REQUESTS_PER_SECOND;
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let is_bounded = all as f64 <= most;
        assert!(is_bounded, "{what}: more than {most:.0} requests in {seconds:.1} s: {count}");
    }
}
