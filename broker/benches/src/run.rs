//! Runs the cells: rounds interleaved, the order of the peers rotated, a fresh server for each.

mod measure;
mod sample;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use sample::{Cost, Figure, Sample, Unit};

use crate::cell::{Cell, Row, Scale, cells};
use crate::noise;
use crate::peer::{self, Peer, Place};

/// What is run.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only these rows; all but `long` when none is given.
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<Row>,
    /// Capstan's peers; all when none is given.
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<Peer>,
    /// Rounds: 5, or 3 when quick.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// One second instead of three for each measurement, and a quarter of each backlog.
    #[arg(long)]
    pub quick: bool,
    /// Longest wait for a quiet machine before a measurement, in seconds.
    #[arg(long, default_value_t = 20)]
    pub quiet: u64,
    /// The release build of the broker.
    #[arg(long)]
    pub broker: PathBuf,
    /// The release build of the sidecar.
    #[arg(long)]
    pub sidecar: PathBuf,
    /// Servers keep their data in a folder of their own in here, on the disk that is to be measured.
    #[arg(long)]
    pub folder: PathBuf,
    /// Writes every sample here, as JSON.
    #[arg(long, short)]
    pub output: Option<PathBuf>,
    /// Writes the tables into this document, between its marks.
    #[arg(long)]
    pub write: Option<PathBuf>,
}

impl Args {
    /// Where programs and data are.
    ///
    /// # Errors
    /// A path is empty.
    pub fn place(&self) -> Result<Place> {
        let folder = std::path::absolute(&self.folder)?.join("capstan-bench");
        let (broker, sidecar) = (std::path::absolute(&self.broker)?, std::path::absolute(&self.sidecar)?);
        Ok(Place { broker, sidecar, folder })
    }

    /// The rows to run.
    pub fn rows(&self) -> Vec<Row> {
        let all = <Row as clap::ValueEnum>::value_variants().iter().copied();
        all.filter(|row| if self.rows.is_empty() { *row != Row::Long } else { self.rows.contains(row) })
            .collect()
    }

    /// Capstan and its peers.
    pub fn peers(&self) -> Vec<Peer> {
        let all = <Peer as clap::ValueEnum>::value_variants().iter().copied();
        all.filter(|peer| *peer == Peer::Capstan || self.peers.is_empty() || self.peers.contains(peer))
            .collect()
    }

    /// How many rounds.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// How long things take.
    pub const fn scale(&self) -> Scale {
        if self.quick {
            Scale { time: Duration::from_secs(1), shrink: 4 }
        } else {
            Scale { time: Duration::from_secs(3), shrink: 1 }
        }
    }
}

/// Runs all, and says how far it is.
///
/// # Errors
/// A server or a client fails, or a count is wrong.
pub async fn run(args: &Args) -> Result<Vec<Sample>> {
    let begun = Instant::now();
    let place = args.place()?;
    peer::remove(&place.folder)?;
    std::fs::create_dir_all(&place.folder)?;
    let (cells, peers, rounds) = (cells(&args.rows(), args.scale()), args.peers(), args.rounds());
    let mut samples = Vec::new();
    for round in 0..rounds {
        let clock = begun.elapsed().as_secs();
        println!("[{}/{rounds}] round ({}:{:02})", round + 1, clock / 60, clock % 60);
        for (number, cell) in cells.iter().enumerate() {
            for peer in rotated(&peers, cell, round as usize + number) {
                let probe = noise::probe(&place.folder, Duration::from_secs(args.quiet))?;
                let measured = measure::measure(&place, cell, peer, args.scale()).await;
                let measured = measured.with_context(|| format!("{}: {}", peer.title(), cell.title))?;
                let sample = Sample { round, row: cell.row, peer, probe, ..measured };
                println!("      {sample}");
                samples.push(sample);
                peer::remove(&place.folder.join("server"))?;
            }
        }
    }
    peer::remove(&place.folder)?;
    Ok(samples)
}

/// The peers that can do a cell, another one first each time.
fn rotated(peers: &[Peer], cell: &Cell, by: usize) -> Vec<Peer> {
    let mut able: Vec<Peer> = peers.iter().copied().filter(|peer| cell.is_for(*peer)).collect();
    let length = able.len().max(1);
    able.rotate_left(by % length);
    able
}
