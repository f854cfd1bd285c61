//! A measurement and what it cost.

use std::fmt;

use serde::Serialize;

use crate::cell::Row;
use crate::noise::{FOREIGN_MAX, Probe};
use crate::peer::Peer;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Messages a second: more is better.
    Rate,
    /// Milliseconds: less is better.
    Millis,
    /// Megabytes (10⁶): less is better.
    Megabytes,
}

impl Unit {
    /// A value with its unit, as tables show it.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Rate if value >= 99_950.0 => format!("{:.0}k/s", value / 1e3),
            Self::Rate => format!("{:.1}k/s", value / 1e3),
            Self::Millis if value >= 100.0 => format!("{value:.0} ms"),
            Self::Millis => format!("{value:.2} ms"),
            Self::Megabytes => format!("{value:.0} MB"),
        }
    }
}

/// One figure of a measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub title: String,
    pub value: f64,
    pub unit: Unit,
    /// The figure of the same peer and round that it is compared with.
    pub against: Option<String>,
}

/// What a measurement took; absent where it has no messages.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Cost {
    pub messages: u64,
    /// Processor seconds of the server's processes.
    pub server_cpu: f64,
    /// Processor seconds of the client.
    pub client_cpu: f64,
    /// Syncs of the server, where it counts them.
    pub syncs: Option<u64>,
    /// Bytes of the server's memory at the end.
    pub memory: u64,
    /// Bytes on the disk at the end.
    pub disk: u64,
}

/// One measurement of one server.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub round: u32,
    pub row: Row,
    pub peer: Peer,
    pub title: &'static str,
    pub figures: Vec<Figure>,
    pub cost: Cost,
    /// Before it.
    pub probe: Probe,
    /// Cores that others used meanwhile.
    pub foreign: f64,
}

impl Sample {
    /// Whether others were at work on the machine.
    pub fn is_noisy(&self) -> bool {
        self.foreign > FOREIGN_MAX
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<20}{:<42}", self.peer.title(), self.title)?;
        for figure in &self.figures {
            write!(f, "{:>11}", figure.unit.show(figure.value))?;
        }
        write!(f, "   sync {:.2} ms, others {:.2} cores", self.probe.sync_ms, self.foreign)
    }
}
