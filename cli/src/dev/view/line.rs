//! A line of the view.

use console::{StyledObject, style};

/// Width of the longest verb.
const VERB_WIDTH: usize = "dead-lettered".len();

/// What kind of news a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Sent,
    Delivered,
    Good,
    Retry,
    Bad,
    Quiet,
}

/// A line: of a queue, or of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// A queue's label, or `app`; empty for what concerns all.
    pub(super) label: String,
    /// Empty for what the application wrote.
    pub(super) verb: &'static str,
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl Line {
    pub(super) fn new(
        label: impl Into<String>,
        verb: &'static str,
        tone: Tone,
        text: impl Into<String>,
    ) -> Self {
        Self { label: label.into(), verb, tone, text: text.into() }
    }

    /// The line with the time of day, its columns and its colours.
    pub(super) fn render(&self, label_width: usize) -> String {
        let now = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        let label = format!("{:label_width$}", self.label);
        let time = style(now).dim();
        if self.verb.is_empty() {
            return format!("{time}  {}  {}", style(label).dim(), style(&self.text).dim());
        }
        let verb = paint(self.tone, format!("{:VERB_WIDTH$}", self.verb));
        format!("{time}  {label}  {verb}  {}", self.text)
    }
}

fn paint(tone: Tone, text: String) -> StyledObject<String> {
    let text = style(text);
    match tone {
        Tone::Sent => text.bold(),
        Tone::Delivered => text.cyan(),
        Tone::Good => text.green(),
        Tone::Retry => text.yellow(),
        Tone::Bad => text.red().bold(),
        Tone::Quiet => text.dim(),
    }
}
