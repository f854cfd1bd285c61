//! What the commands write: plain text for people, one JSON object per line for programs.

use std::io::Write;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use serde::Serialize;

/// Longest body that a line of text shows, in characters.
const PREVIEW_CHARS_MAX: usize = 100;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; may change.
    Text,
    /// One JSON object per line.
    Json,
}

/// Writes `text` to standard output, whole.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes each value as a line of JSON.
pub(crate) fn print_lines(values: &[impl Serialize]) -> std::io::Result<()> {
    let mut lines = String::new();
    for value in values {
        lines.push_str(&serde_json::to_string(value)?);
        lines.push('\n');
    }
    print(&lines)
}

/// Left-aligned columns, as wide as their content; the last is not padded.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let all = || std::iter::once(&header).chain(rows);
    let width =
        |i: usize| all().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all().map(line).collect()
}

/// A text on one line, cut where it gets long.
pub(crate) fn preview(text: &str) -> String {
    let mut shown: String =
        text.chars().take(PREVIEW_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(PREVIEW_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// How long ago a time in milliseconds since 1970 was, such as `14s`.
pub(crate) fn age(timestamp_ms: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_millis(timestamp_ms)).as_secs();
    match age {
        0..60 => format!("{age}s"),
        60..3600 => format!("{}m", age / 60),
        3600..86_400 => format!("{}h", age / 3600),
        _ => format!("{}d", age / 86_400),
    }
}

/// `1 message`, `2 messages`.
pub(crate) fn messages(count: u64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "long".to_owned()], vec!["orders".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["NAME", "B"], &rows), "NAME    B\na       long\norders  x\n");
    }

    #[test]
    fn previews_stay_on_one_line() {
        assert_eq!(preview("a\nb"), "a b");
        assert_eq!(preview(&"ä".repeat(200)).chars().count(), PREVIEW_CHARS_MAX + 1);
    }
}
