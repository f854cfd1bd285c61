//! What is measured: the rows of the table, and the cells that a row takes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::peer::Peer;

/// A row, or a group of rows that compare two states of the same server.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    Publish,
    Consume,
    EndToEnd,
    Latency,
    /// Consumption by an application behind a sidecar against clients that pull.
    Sidecar,
    /// 1,000,000 messages waiting against 200,000, and memory.
    Backlog,
    /// 1,000 queues against 1.
    Queues,
    /// Start with 1,000,000 messages waiting.
    Start,
    /// Capstan's memory with 10,000,000 messages waiting; takes minutes and is run only when named.
    Long,
}

/// Who takes messages in loads that have producers too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumers {
    /// Clients that pull, or calls of the application at once.
    pub count: usize,
    /// Most messages that one takes at a time.
    pub batch: usize,
    /// Whether a sidecar pulls and calls an application, instead of clients that pull.
    pub by_sidecar: bool,
}

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    Publish {
        producers: usize,
        batch: usize,
    },
    /// Ends early when `limit` messages were taken.
    Consume {
        consumers: usize,
        batch: usize,
        limit: u64,
    },
    EndToEnd {
        producers: usize,
        batch: usize,
        consumers: Consumers,
    },
    /// Messages a second, over all producers.
    Latency {
        rate: u32,
        consumers: Consumers,
    },
    Start,
    /// Only fills.
    Memory,
}

/// One measurement of one server.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub row: Row,
    pub title: &'static str,
    pub load: Load,
    /// Messages that wait when it begins.
    pub fill: u64,
    pub queues: usize,
    /// The title of the cell of the same peer that this one is compared with; otherwise peers are compared.
    pub against: Option<&'static str>,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Of a load.
    pub time: Duration,
    /// Divides backlogs.
    pub shrink: u64,
}

impl Cell {
    /// Whether a peer can do it.
    pub fn is_for(&self, peer: Peer) -> bool {
        let publishes = matches!(self.load, Load::Publish { .. });
        match peer {
            Peer::Capstan => true,
            _ if self.row == Row::Sidecar => false,
            // Ten million messages would be over ten gigabytes of memory.
            Peer::Redis | Peer::RedisSteady => self.row != Row::Long,
            Peer::Ceiling => publishes && self.row == Row::Publish,
            // It has one table, and takes long to fill.
            Peer::Postgres => self.row <= Row::Latency,
        }
    }
}

const fn cell(row: Row, title: &'static str, load: Load, fill: u64) -> Cell {
    Cell { row, title, load, fill, queues: 1, against: None }
}

const fn against(cell: Cell, title: &'static str) -> Cell {
    Cell { against: Some(title), ..cell }
}

const PULL: Consumers = Consumers { count: 8, batch: 100, by_sidecar: false };
const PUSH: Consumers = Consumers { by_sidecar: true, ..PULL };

/// Most messages of a cell that compares backlogs: the same work on both sides.
const LIMIT: u64 = 150_000;

/// All cells of the rows.
pub fn cells(rows: &[Row], scale: Scale) -> Vec<Cell> {
    let one = Load::Publish { producers: 64, batch: 1 };
    let batch = Load::Publish { producers: 8, batch: 100 };
    let alone = Load::Publish { producers: 1, batch: 1 };
    let take = |batch, limit| Load::Consume { consumers: 8, batch, limit };
    let (few, many) = (200_000, 1_000_000);
    let queues = |cell: Cell, queues| Cell { queues, ..cell };
    let through = |producers, batch, consumers| Load::EndToEnd { producers, batch, consumers };
    let single = |consumers: Consumers| Consumers { batch: 1, ..consumers };
    let all = [
        cell(Row::Publish, "publish, 64 × 1", one, 0),
        cell(Row::Publish, "publish, 8 × batch 100", batch, 0),
        cell(Row::Publish, "publish, 1 × 1", alone, 0),
        cell(Row::Consume, "consume, 8 × 1", take(1, u64::MAX), few),
        cell(Row::Consume, "consume, 8 × 100", take(100, u64::MAX), 2 * few),
        cell(Row::EndToEnd, "end to end, 64 × 1 → 8 × 100", through(64, 1, PULL), 0),
        cell(Row::EndToEnd, "end to end, 8 × b100 → 8 × 100", through(8, 100, PULL), 0),
        cell(
            Row::Latency,
            "publish → delivered at 2,000/s",
            Load::Latency { rate: 2_000, consumers: PULL },
            0,
        ),
        cell(Row::Sidecar, "pulled directly, 8 × 100", through(8, 100, PULL), 0),
        against(
            cell(Row::Sidecar, "through the sidecar, 8 × 100", through(8, 100, PUSH), 0),
            "pulled directly, 8 × 100",
        ),
        cell(Row::Sidecar, "pulled directly, 8 × 1", through(8, 100, single(PULL)), 0),
        against(
            cell(Row::Sidecar, "through the sidecar, 8 × 1", through(8, 100, single(PUSH)), 0),
            "pulled directly, 8 × 1",
        ),
        cell(Row::Sidecar, "publish → client at 500/s", Load::Latency { rate: 500, consumers: PULL }, 0),
        against(
            cell(
                Row::Sidecar,
                "publish → application at 500/s",
                Load::Latency { rate: 500, consumers: PUSH },
                0,
            ),
            "publish → client at 500/s",
        ),
        cell(Row::Backlog, "publish, 8 × batch 100, 200,000 waiting", batch, few),
        against(
            cell(Row::Backlog, "publish, 8 × batch 100, 1,000,000 waiting", batch, many),
            "publish, 8 × batch 100, 200,000 waiting",
        ),
        cell(Row::Backlog, "consume, 8 × 100, 200,000 waiting", take(100, LIMIT), few),
        against(
            cell(Row::Backlog, "consume, 8 × 100, 1,000,000 waiting", take(100, LIMIT), many),
            "consume, 8 × 100, 200,000 waiting",
        ),
        cell(Row::Queues, "publish, 64 × 1, 1 queue", one, 0),
        against(
            queues(cell(Row::Queues, "publish, 64 × 1, 1,000 queues", one, 0), 1000),
            "publish, 64 × 1, 1 queue",
        ),
        cell(Row::Queues, "consume, 8 × 100, 1 queue", take(100, LIMIT), few),
        against(
            queues(cell(Row::Queues, "consume, 8 × 100, 1,000 queues", take(100, LIMIT), few), 1000),
            "consume, 8 × 100, 1 queue",
        ),
        cell(Row::Start, "start, 1,000,000 waiting", Load::Start, many),
        cell(Row::Long, "memory, 10,000,000 waiting", Load::Memory, 10 * many),
    ];
    let wanted = all.into_iter().filter(|cell| rows.contains(&cell.row));
    wanted.map(|cell| shrunk(cell, scale.shrink)).collect()
}

fn shrunk(cell: Cell, by: u64) -> Cell {
    let load = match cell.load {
        Load::Consume { consumers, batch, limit: LIMIT } => {
            Load::Consume { consumers, batch, limit: LIMIT / by }
        }
        load => load,
    };
    Cell { load, fill: cell.fill / by, ..cell }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use clap::ValueEnum;

    use super::*;

    #[test]
    fn each_comparison_has_its_other_side_and_titles_are_unique() {
        let cells = cells(Row::value_variants(), Scale { time: Duration::from_secs(1), shrink: 1 });
        let titles: BTreeSet<&str> = cells.iter().map(|cell| cell.title).collect();
        assert_eq!(titles.len(), cells.len());
        for cell in &cells {
            assert!(cell.against.is_none_or(|other| titles.contains(other)), "{}", cell.title);
            assert!(cell.is_for(Peer::Capstan));
        }
        assert!(Row::value_variants().iter().all(|row| cells.iter().any(|cell| cell.row == *row)));
    }

    #[test]
    fn a_sidecar_is_compared_with_as_many_clients_under_the_same_load() {
        let scale = Scale { time: Duration::from_secs(1), shrink: 1 };
        let cells = cells(&[Row::Sidecar], scale);
        let loads = cells.iter().map(|cell| (cell.title, cell.load)).collect::<BTreeMap<_, _>>();
        let compared: Vec<&Cell> = cells.iter().filter(|cell| cell.against.is_some()).collect();
        assert_eq!(compared.len() * 2, cells.len());
        for cell in compared {
            let directly = |consumers: Consumers| {
                assert!(consumers.by_sidecar, "{}", cell.title);
                Consumers { by_sidecar: false, ..consumers }
            };
            let wanted = match cell.load {
                Load::EndToEnd { producers, batch, consumers } => {
                    Load::EndToEnd { producers, batch, consumers: directly(consumers) }
                }
                Load::Latency { rate, consumers } => Load::Latency { rate, consumers: directly(consumers) },
                other => panic!("{other:?} has no consumers"),
            };
            assert_eq!(loads[cell.against.unwrap()], wanted, "{}", cell.title);
            assert!(!cell.is_for(Peer::Redis) && !cell.is_for(Peer::Postgres));
        }
    }
}
