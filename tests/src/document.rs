//! What `docs/metrics.md` says of metrics, and whether a program serves that.
#![allow(clippy::panic, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;

/// Labels whose values nobody can list.
const FREE: [&str; 3] = ["", "namespace", "queue"];

/// Checks that the section `title` of `document` names the metrics in `served` (Prometheus' text format) and no other, and, where
/// it lists values of a row's last label, these and no other. Answers how many values it compared.
///
/// # Panics
/// When they differ.
pub fn check(document: &str, title: &str, served: &str) -> usize {
    let (_, rest) = document.split_once(&format!("\n## {title}\n")).expect("the document has the section");
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split('|').map(str::trim).collect()).collect();
    let types = served.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let names: BTreeSet<&str> = types.collect();
    assert!(names.len() > 15, "{names:?}");
    assert_eq!(names, rows.iter().flat_map(|row| quoted(row[1])).collect(), "the metrics");
    let mut compared = 0;
    for row in rows {
        let (metric, label, listed) = (quoted(row[1])[0], row[2].rsplit(", ").next(), quoted(row[3]));
        let Some(label) = label.filter(|label| !FREE.contains(label) && !listed.is_empty()) else { continue };
        compared += listed.len();
        assert_eq!(values(served, metric, label), listed.into_iter().collect(), "{label} of {metric}");
    }
    compared
}

fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn values<'a>(served: &'a str, metric: &str, label: &str) -> BTreeSet<&'a str> {
    let (begin, key) = (format!("{metric}{{"), format!("{label}=\""));
    let lines = served.lines().filter_map(|line| line.strip_prefix(&begin));
    lines.filter_map(|labels| labels.split_once(&key)?.1.split('"').next()).collect()
}
