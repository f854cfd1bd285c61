//! Writes the view: on a terminal with the depth of each queue in place below the lines, otherwise as lines alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use capstan_api::control::{BrokerState, QueueState};
use console::{Term, style, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::facts::Facts;
use super::line::{Line, Tone};
use crate::output::print;

/// Queues whose depth is shown.
const QUEUES_MAX: usize = 12;
/// How often a depth is written as a line at most.
const DEPTH_EVERY: Duration = Duration::from_secs(1);
type Column = (&'static str, fn(&QueueState) -> u64);

/// Columns of the depth: name, and what is in it.
const COLUMNS: [Column; 7] = [
    ("READY", |queue| queue.ready),
    ("LEASED", |queue| queue.leased),
    ("DELAYED", |queue| queue.delayed),
    ("SENT", |queue| queue.totals.sent),
    ("ACKED", |queue| queue.totals.acknowledged),
    ("FAILED", |queue| queue.totals.retried + queue.totals.lease_expired),
    ("DEAD-LETTERED", |queue| queue.totals.dead_lettered),
];

/// Standard output.
pub(super) struct Screen {
    /// Shown in place; nothing when the output is no terminal.
    below: Option<ProgressBar>,
    label_width: usize,
    /// The depths that were last written as lines, by label.
    written: BTreeMap<String, (String, Instant)>,
}

impl Screen {
    pub(super) fn new(label_width: usize) -> Self {
        let target = ProgressDrawTarget::stdout();
        let below = (!target.is_hidden()).then(|| {
            let bar = ProgressBar::with_draw_target(None, target);
            // A constant template is well-formed; the default would do too.
            let style = ProgressStyle::with_template("{msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        Self { below, label_width, written: BTreeMap::new() }
    }

    /// Writes a text of lines.
    pub(super) fn text(&self, text: &str) -> std::io::Result<()> {
        match &self.below {
            Some(bar) => bar.suspend(|| print(text)),
            None => print(text),
        }
    }

    /// Writes a line.
    pub(super) fn line(&self, line: &Line) -> std::io::Result<()> {
        self.text(&format!("{}\n", line.render(self.label_width)))
    }

    /// Shows the depth of each queue.
    pub(super) fn depth(&mut self, facts: &Facts, state: &BrokerState) -> std::io::Result<()> {
        match &self.below {
            Some(bar) => {
                bar.set_message(self.table(facts, state));
                bar.tick();
                Ok(())
            }
            None => self.depth_lines(facts, state),
        }
    }

    /// Takes the depths away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.below {
            bar.finish_and_clear();
        }
    }

    fn table(&self, facts: &Facts, state: &BrokerState) -> String {
        let width = usize::from(Term::stdout().size().1);
        let label_width = self.label_width;
        let header = COLUMNS.map(|(name, _)| format!("{name:>5}")).join("  ");
        let mut lines =
            vec![String::new(), style(format!("{:label_width$}  {header}", "QUEUE")).dim().to_string()];
        for queue in state.queues.iter().take(QUEUES_MAX) {
            let label = facts.labels.label(&queue.namespace, &queue.name);
            let cells = COLUMNS.map(|(name, value)| {
                let (value, width) = (value(queue), name.len().max(5));
                let cell = format!("{value:>width$}");
                if value == 0 { style(cell).dim().to_string() } else { style(cell).bold().to_string() }
            });
            lines.push(format!("{label:label_width$}  {}", cells.join("  ")));
        }
        if let Some(more) = state.queues.len().checked_sub(QUEUES_MAX).filter(|more| *more > 0) {
            lines.push(format!("and {more} more: capstan queues"));
        }
        lines
            .iter()
            .map(|line| truncate_str(line, width.saturating_sub(1), "…").into_owned())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn depth_lines(&mut self, facts: &Facts, state: &BrokerState) -> std::io::Result<()> {
        for queue in &state.queues {
            let label = facts.labels.label(&queue.namespace, &queue.name);
            let text = in_words(queue);
            let last = self.written.get(&label);
            if last.is_some_and(|(last, at)| *last == text || at.elapsed() < DEPTH_EVERY) {
                continue;
            }
            // An empty queue is no news at the start.
            if last.is_some() || queue.ready + queue.leased + queue.delayed + queue.dead > 0 {
                self.line(&Line::new(label.clone(), "depth", Tone::Quiet, text.clone()))?;
                self.written.insert(label, (text, Instant::now()));
            }
        }
        Ok(())
    }
}

fn in_words(queue: &QueueState) -> String {
    let QueueState { ready, leased, delayed, dead, .. } = queue;
    let blocked =
        if *dead > 0 { format!(", {dead} waiting for the dead-letter queue") } else { String::new() };
    format!("{ready} ready, {leased} leased, {delayed} delayed{blocked}")
}
