//! What broker and sidecar log, as far as a developer wants it: errors, and what an answer said that has no effect.
//! `CAPSTAN_LOG=info` or the like shows everything from that level.

use std::fmt::{Debug, Write};

use tokio::sync::mpsc::Sender;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::dev::happening::Happening;

const LEVEL: &str = "CAPSTAN_LOG";
/// What is logged of other crates is not for users of this program.
const OWN: &str = "capstan";
/// A field of lines about answers without effect.
const WARNING: &str = "warning";

/// Shows log lines through `sender` from now on.
pub(in crate::dev) fn install(sender: Sender<Happening>) {
    let level = std::env::var(LEVEL).ok().and_then(|level| level.parse().ok());
    // There is no subscriber yet in this program.
    let _ = tracing_subscriber::registry().with(Log { level, sender }).try_init();
}

struct Log {
    level: Option<Level>,
    sender: Sender<Happening>,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let about_answer = metadata.fields().field(WARNING).is_some();
        let wanted = about_answer || *metadata.level() <= self.level.unwrap_or(Level::ERROR);
        if !wanted || !metadata.target().starts_with(OWN) {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        // Logging never waits.
        let _ = self.sender.try_send(Happening::Warning(text.join()));
    }
}

/// The message of an event, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn join(self) -> String {
        format!("{}{}", self.message, self.fields)
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            WARNING => write!(self.fields, ": {value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
