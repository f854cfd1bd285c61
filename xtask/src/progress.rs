//! Says what is being done and how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a step may be silent.
const QUIET: Duration = Duration::from_secs(20);

/// The clock and the count of steps of one run.
pub struct Progress {
    start: Instant,
    spoke: Instant,
    /// Steps that began, of all who go on at the same time.
    begun: Arc<AtomicUsize>,
    steps: usize,
    /// Before each line, where several speak at the same time.
    label: String,
}

impl Progress {
    /// A run of so many steps; with 0 they are not counted.
    pub fn new(steps: usize) -> Self {
        let now = Instant::now();
        Self { start: now, spoke: now, begun: Arc::default(), steps, label: String::new() }
    }

    /// For a part of the run that goes on beside others: the same clock and count, and lines that say whose they are.
    pub fn beside(&self, label: String) -> Self {
        let (start, begun, steps) = (self.start, self.begun.clone(), self.steps);
        Self { start, spoke: Instant::now(), begun, steps, label }
    }

    /// Corrects the number of steps.
    pub fn replan(&mut self, steps: usize) {
        self.steps = steps;
    }

    /// Begins the next step, whose title says whose it is.
    pub fn step(&mut self, title: &str) {
        let count = self.count();
        println!("{count}{title} ({})", clock(self.start.elapsed()));
        self.spoke = Instant::now();
    }

    /// Something worth a line of its own.
    pub fn note(&mut self, text: &str) {
        println!("{}", self.line(text));
        self.spoke = Instant::now();
    }

    /// What a program printed, between two notes: at once, so that nobody else's lines come between.
    pub fn quote(&mut self, before: &str, text: &str, after: &str) {
        println!("{}\n{text}\n{}", self.line(before), self.line(after));
        self.spoke = Instant::now();
    }

    /// Something that went wrong, in as many lines as it takes.
    pub fn say(&mut self, text: &str) {
        println!("{}", if self.label.is_empty() { text.to_owned() } else { self.line(text) });
        self.spoke = Instant::now();
    }

    /// The next step's number.
    fn count(&self) -> String {
        let step = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        if self.steps == 0 { String::new() } else { format!("[{step}/{}] ", self.steps) }
    }

    fn line(&self, text: &str) -> String {
        format!("      {}{text}", self.label)
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
    fn those_who_go_on_at_the_same_time_count_together() {
        let mut all = Progress::new(4);
        assert_eq!(all.count(), "[1/4] ");
        all.replan(3);
        let [one, other] = ["one", "other"].map(|label| all.beside(format!("{label}: ")));
        assert_eq!((one.count(), other.count()), ("[2/3] ".to_owned(), "[3/3] ".to_owned()));
        assert_eq!(Progress::new(0).beside(String::new()).count(), "");
    }

    #[test]
    fn lines_say_whose_they_are_where_several_speak() {
        let all = Progress::new(2);
        assert_eq!(all.line("up"), "      up");
        assert_eq!(all.beside("node: ".to_owned()).line("up"), "      node: up");
    }

    #[test]
    fn minutes_are_not_wrapped() {
        assert_eq!(clock(Duration::from_secs(5)), "0:05");
        assert_eq!(clock(Duration::from_secs(3_725)), "62:05");
    }
}
