//! What was measured, as tables.

use std::fmt::Write as _;

use crate::run::{Result, Results};

/// Tables in Markdown, which people read in a terminal too.
pub fn tables(results: &[Results]) -> String {
    results.iter().map(|results| format!("{}\n", of(results))).collect()
}

/// The table of a pattern, with its heading.
pub fn of(Results { pattern, scalers }: &Results) -> String {
    let mut text = format!(
        "**{}**: {} ({} messages, seed {}). A call takes {}; {} per pod.\n\n",
        pattern.name,
        pattern.about,
        number(scalers.first().map_or(0, |result| result.messages as u64)),
        pattern.seed,
        if pattern.service < 60 {
            format!("{} s", pattern.service)
        } else {
            format!("{} min", pattern.service / 60)
        },
        if pattern.target == 1 { "1 message".to_owned() } else { format!("{} messages", pattern.target) },
    );
    text += "| | pod-seconds | waited p50 | p99 | most | first pod after | stopped busy | cut off | delivered twice | changes |\n";
    text += "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for result in scalers {
        row(&mut text, result);
    }
    text
}

fn row(text: &mut String, result: &Result) {
    let first = result.first_pod.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds} s"));
    let waited = result.waited;
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "| {} | {} | {} s | {} s | {} s | {first} | {} | {} | {} | {} |",
        result.scaler.name(),
        number(result.pod_seconds),
        number(waited.p50),
        number(waited.p99),
        number(waited.most),
        result.stopped_busy,
        result.cut_off,
        result.twice,
        result.changes,
    );
}

/// With commas between thousands.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn thousands_are_set_apart() {
        let rows = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (value, text) in rows {
            assert_eq!(number(value), text);
        }
    }
}
