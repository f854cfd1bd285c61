//! Says what is being done and how far it is.

use std::time::{Duration, Instant};

/// How long a step may be silent.
const QUIET: Duration = Duration::from_secs(20);

/// The clock and the count of steps of one run.
pub struct Progress {
    start: Instant,
    spoke: Instant,
    step: usize,
    steps: usize,
}

impl Progress {
    /// A run of so many steps; with 0 they are not counted.
    pub fn new(steps: usize) -> Self {
        Self { start: Instant::now(), spoke: Instant::now(), step: 0, steps }
    }

    /// Corrects the number of steps.
    pub fn replan(&mut self, steps: usize) {
        self.steps = steps;
    }

    /// Begins the next step.
    pub fn step(&mut self, title: &str) {
        self.step += 1;
        let count = if self.steps == 0 { String::new() } else { format!("[{}/{}] ", self.step, self.steps) };
        println!("{count}{title} ({})", clock(self.start.elapsed()));
        self.spoke = Instant::now();
    }

    /// Something worth a line of its own.
    pub fn note(&mut self, text: &str) {
        println!("      {text}");
        self.spoke = Instant::now();
    }

    /// Says `text` when nothing was said for a while.
    pub fn idle(&mut self, text: impl FnOnce() -> String) {
        if self.spoke.elapsed() >= QUIET {
            let line = format!("… {} ({})", text(), clock(self.start.elapsed()));
            self.note(&line);
        }
    }
}

/// Minutes and seconds.
pub fn clock(elapsed: Duration) -> String {
    format!("{}:{:02}", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_not_wrapped() {
        assert_eq!(clock(Duration::from_secs(5)), "0:05");
        assert_eq!(clock(Duration::from_secs(3_725)), "62:05");
    }
}
