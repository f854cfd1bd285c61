//! The live view: lines of what happened, and below them, on a terminal, the depth of each queue.

mod digest;
mod facts;
mod line;
pub(super) mod log;
mod screen;
mod totals;

use std::path::Path;
use std::time::Duration;

use capstan_api::ControlClient;
use capstan_api::control::{BrokerState, Declaration};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use super::happening::Happening;
use crate::failure::Failure;
use crate::output::messages;
use digest::Digest;
use facts::Facts;
pub(super) use facts::Labels;
use line::{Line, Tone};
use screen::Screen;

/// How often is shown what happened since.
const TICK: Duration = Duration::from_millis(150);
/// It is shown sooner when so much has happened.
const LINES_MAX: usize = 500;

/// The view, and what it knows of the broker.
pub(super) struct View {
    facts: Facts,
    control: ControlClient,
    digest: Digest,
    screen: Screen,
    state: Option<BrokerState>,
}

impl View {
    /// A view of the queues of `declaration`.
    pub(super) fn new(declaration: &Declaration, control: ControlClient) -> Self {
        let facts = Facts::of(declaration);
        let screen = Screen::new(facts.labels.width());
        Self { facts, control, digest: Digest::default(), screen, state: None }
    }

    /// Shows the text of the start.
    pub(super) fn introduce(&self, text: &str) -> Result<(), Failure> {
        Ok(self.screen.text(text)?)
    }

    /// Shows what happens until `ended`, and what is left then.
    pub(super) async fn run(
        mut self,
        mut happenings: Receiver<Happening>,
        ended: CancellationToken,
    ) -> Result<Self, Failure> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(happening) = happenings.recv() => self.digest.add(&self.facts, happening),
                _ = tick.tick() => self.show().await?,
                () = ended.cancelled() => break,
            }
            if self.digest.len() >= LINES_MAX {
                self.show().await?;
            }
        }
        while let Ok(happening) = happenings.try_recv() {
            self.digest.add(&self.facts, happening);
        }
        self.show().await?;
        Ok(self)
    }

    async fn show(&mut self) -> Result<(), Failure> {
        // Events are taken first: the broker has counted the send of every message that they speak of.
        let lines = self.digest.take();
        let mut shown = Vec::new();
        // While the broker is ending it may not answer; the state of before stays.
        if let Ok(state) = self.control.state().await {
            let changes = totals::changes(&self.facts, self.state.as_ref(), &state);
            shown.extend(changes);
            self.state = Some(state);
        }
        // What was sent comes first, what became of it after.
        let (before, after): (Vec<Line>, Vec<Line>) =
            shown.into_iter().partition(|line| line.tone == Tone::Sent);
        for line in before.iter().chain(&lines).chain(&after) {
            self.screen.line(line)?;
        }
        if let Some(state) = &self.state {
            self.screen.depth(&self.facts, state)?;
        }
        Ok(())
    }

    /// Says what stays.
    pub(super) fn conclude(&self, data: &Path) -> Result<(), Failure> {
        self.screen.clear();
        let queues = self.state.iter().flat_map(|state| &state.queues);
        let left: Vec<String> = queues
            .map(|queue| (queue, queue.ready + queue.delayed + queue.leased + queue.dead))
            .filter(|(_, count)| *count > 0)
            .map(|(queue, count)| {
                format!("{} in {}", messages(count), self.facts.labels.label(&queue.namespace, &queue.name))
            })
            .collect();
        let left = if left.is_empty() {
            "nothing is left".to_owned()
        } else {
            format!("kept in {}: {}", data.display(), left.join(", "))
        };
        Ok(self.screen.text(&format!("ended; {left}\n"))?)
    }
}
