//! What came of a run: counts per level, the names of what failed, the last line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::level::Level;

/// The outcome of a run.
#[derive(Debug, Default)]
pub struct Report {
    levels: BTreeMap<Level, Count>,
}

/// The outcome of a level.
#[derive(Debug, Default)]
pub struct Count {
    passed: usize,
    failed: Vec<String>,
    time: Duration,
}

impl Report {
    /// A run in which each of these levels must run at least one test.
    pub fn new(levels: &[Level]) -> Self {
        Self { levels: levels.iter().map(|level| (*level, Count::default())).collect() }
    }

    /// Adds tests that passed and the names of those that failed.
    pub fn add(&mut self, level: Level, passed: usize, failed: Vec<String>, time: Duration) {
        let count = self.levels.entry(level).or_default();
        count.passed += passed;
        count.failed.extend(failed);
        count.time += time;
    }

    /// Adds what came of levels that ran beside.
    pub fn merge(&mut self, other: Self) {
        for (level, count) in other.levels {
            self.add(level, count.passed, count.failed, count.time);
        }
    }

    /// Adds a failure that is no test: a build, or a cluster that does not start.
    pub fn fail(&mut self, level: Level, what: &str) {
        self.add(level, 0, vec![what.to_owned()], Duration::ZERO);
    }

    /// Makes every level that ran nothing a failure.
    pub fn close(&mut self) {
        for count in self.levels.values_mut() {
            if count.passed == 0 && count.failed.is_empty() {
                count.failed.push("it ran no test".to_owned());
            }
        }
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.passed() > 0 && self.failed() == 0
    }

    /// The table, what failed, and as the last line the whole count.
    pub fn text(&self) -> String {
        let mut text = format!("\n{:<12}{:>8}{:>8}{:>9}\n", "level", "passed", "failed", "seconds");
        for (level, count) in &self.levels {
            let (passed, failed, time) = (count.passed, count.failed.len(), count.time.as_secs_f64());
            let _ = writeln!(text, "{:<12}{passed:>8}{failed:>8}{time:>9.1}", level.name());
        }
        for (level, count) in &self.levels {
            for name in &count.failed {
                let _ = writeln!(text, "FAILED {level}: {name}");
            }
        }
        let _ = write!(text, "\n{} passed, {} failed", self.passed(), self.failed());
        text
    }

    fn passed(&self) -> usize {
        self.levels.values().map(|count| count.passed).sum()
    }

    /// How many failed so far.
    pub fn failed(&self) -> usize {
        self.levels.values().map(|count| count.failed.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_ran_nothing_fails() {
        let mut report = Report::new(&[Level::Pure, Level::Node]);
        report.add(Level::Pure, 3, Vec::new(), Duration::from_secs(2));
        report.close();
        assert!(!report.is_good());
        let text = report.text();
        assert!(text.contains("FAILED node: it ran no test"), "{text}");
        assert_eq!(text.lines().last(), Some("3 passed, 1 failed"));
    }

    #[test]
    fn no_level_at_all_is_not_good() {
        let mut report = Report::new(&[]);
        report.close();
        assert!(!report.is_good());
    }

    #[test]
    fn counts_add_up() {
        let mut report = Report::new(&[Level::Pure, Level::Process]);
        report.add(Level::Pure, 3, Vec::new(), Duration::from_secs(2));
        report.add(Level::Pure, 4, vec!["x::y".to_owned()], Duration::from_secs(1));
        report.add(Level::Process, 1, Vec::new(), Duration::from_millis(1_500));
        report.close();
        let text = report.text();
        assert!(text.contains("pure               7       1      3.0"), "{text}");
        assert!(text.contains("FAILED pure: x::y"), "{text}");
        assert_eq!(text.lines().last(), Some("8 passed, 1 failed"));
    }

    #[test]
    fn what_ran_beside_is_told_as_if_it_had_run_alone() {
        let levels = [Level::Pure, Level::ApiServer, Level::Node];
        let add = |report: &mut Report, level, passed, failed: &[&str]| {
            let failed = failed.iter().map(|name| (*name).to_owned()).collect();
            report.add(level, passed, failed, Duration::from_secs(2));
        };
        let (mut alone, mut merged) = (Report::new(&levels), Report::new(&levels));
        let [mut api, mut node] = [Level::ApiServer, Level::Node].map(|level| Report::new(&[level]));
        for (report, api) in [(&mut alone, None), (&mut merged, Some(&mut api))] {
            add(report, Level::Pure, 1, &[]);
            add(api.unwrap_or(report), Level::ApiServer, 2, &["a", "b"]);
        }
        add(&mut alone, Level::Node, 3, &["c"]);
        add(&mut node, Level::Node, 3, &["c"]);
        // The one that ends first is not always the same.
        merged.merge(node);
        merged.merge(api);
        assert_eq!(merged.text(), alone.text());
        assert_eq!(merged.text().lines().last(), Some("6 passed, 3 failed"));
    }

    #[test]
    fn a_side_that_ran_nothing_fails() {
        let mut report = Report::new(&[Level::ApiServer, Level::Node]);
        let mut node = Report::new(&[Level::Node]);
        node.add(Level::Node, 1, Vec::new(), Duration::ZERO);
        report.merge(node);
        report.merge(Report::new(&[Level::ApiServer]));
        report.close();
        assert!(report.text().contains("FAILED api-server: it ran no test"), "{}", report.text());
    }

    #[test]
    fn all_good() {
        let mut report = Report::new(&[Level::Pure]);
        report.add(Level::Pure, 3, Vec::new(), Duration::ZERO);
        report.close();
        assert!(report.is_good());
        assert_eq!(report.text().lines().last(), Some("3 passed, 0 failed"));
    }
}
