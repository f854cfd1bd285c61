//! The tables, as Markdown: medians, and ratios taken within a round.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::peer::Peer;
use crate::run::{Figure, Sample, Unit};
use crate::stats::Spread;

const BEGIN: &str = "<!-- tables: begin, written by `cargo xtask bench --write` -->\n";
const END: &str = "<!-- tables: end -->";

/// All tables of a run.
pub fn markdown(samples: &[Sample]) -> String {
    let quiet: Vec<&Sample> = samples.iter().filter(|sample| !sample.is_noisy()).collect();
    let noisy = samples.len() - quiet.len();
    // A cell that was never quiet is shown all the same.
    let has_quiet = |sample: &Sample| quiet.iter().any(|q| q.title == sample.title && q.peer == sample.peer);
    let used: Vec<&Sample> = samples.iter().filter(|s| !s.is_noisy() || !has_quiet(s)).collect();
    let used = Samples(used);
    let mut text = used.peers_table();
    text += &used.states_table();
    text += &used.costs_table();
    let all = samples.len();
    let _infallible = writeln!(
        text,
        "{noisy} of {all} measurements ran while others used more than {} cores; they count only where a cell has no other.",
        crate::noise::FOREIGN_MAX
    );
    text
}

/// Replaces what is between the marks of a document.
///
/// # Errors
/// It cannot be read or written, or has no marks.
pub fn write(document: &Path, tables: &str) -> Result<()> {
    let context = || format!("cannot update {}", document.display());
    let text = std::fs::read_to_string(document).with_context(context)?;
    let text = replaced(&text, tables).with_context(context)?;
    std::fs::write(document, text).with_context(context)
}

fn replaced(text: &str, tables: &str) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("its first mark is missing")?;
    let (_, after) = rest.split_once(END).context("its second mark is missing")?;
    Ok(format!("{before}{BEGIN}\n{}\n\n{END}{after}", tables.trim()))
}

struct Samples<'a>(Vec<&'a Sample>);

impl<'a> Samples<'a> {
    /// The peers, in order.
    fn peers(&self) -> Vec<Peer> {
        let mut peers: Vec<Peer> = self.0.iter().map(|sample| sample.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// The figures' titles in the order in which they were first measured.
    fn titles(&self) -> Vec<&'a Figure> {
        let mut titles: Vec<&Figure> = Vec::new();
        for figure in self.0.iter().flat_map(|sample| &sample.figures) {
            if titles.iter().all(|known| known.title != figure.title) {
                titles.push(figure);
            }
        }
        titles
    }

    /// A figure's values of one peer, by round.
    fn values(&self, peer: Peer, title: &str) -> BTreeMap<u32, f64> {
        let of = self.0.iter().filter(|sample| sample.peer == peer);
        of.flat_map(|sample| sample.figures.iter().map(|figure| (sample.round, figure)))
            .filter(|(_, figure)| figure.title == title)
            .map(|(round, figure)| (round, figure.value))
            .collect()
    }

    fn peers_table(&self) -> String {
        let peers = self.peers();
        let mut text = "| 1 KiB messages |".to_owned();
        let mut rule = "|---|".to_owned();
        for peer in &peers {
            let _infallible = match peer {
                Peer::Capstan => write!(text, " Capstan |"),
                other => write!(text, " {} | Capstan ÷ it |", other.title()),
            };
            rule += if *peer == Peer::Capstan { "---|" } else { "---|---|" };
        }
        text = format!("{text}\n{rule}\n");
        for figure in self.titles() {
            let ours = self.values(Peer::Capstan, &figure.title);
            let _infallible = write!(text, "| {} |", figure.title);
            for peer in &peers {
                let theirs = self.values(*peer, &figure.title);
                let _infallible = write!(text, " {} |", middle(&theirs, figure.unit));
                if *peer != Peer::Capstan {
                    let _infallible = write!(text, " {} |", ratio(&ours, &theirs));
                }
            }
            text.push('\n');
        }
        text + "\n"
    }

    fn states_table(&self) -> String {
        let compared: Vec<&Figure> =
            self.titles().into_iter().filter(|figure| figure.against.is_some()).collect();
        if compared.is_empty() {
            return String::new();
        }
        let able = |peer: &Peer| compared.iter().any(|figure| !self.values(*peer, &figure.title).is_empty());
        let peers: Vec<Peer> = self.peers().into_iter().filter(able).collect();
        let names: Vec<&str> = peers.iter().map(|peer| peer.title()).collect();
        let mut text = format!("| ratio of | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(peers.len()));
        for figure in compared {
            let other = figure.against.as_deref().unwrap_or_default();
            let _infallible = write!(text, "| {} ÷ {other} |", figure.title);
            for peer in &peers {
                let (this, base) = (self.values(*peer, &figure.title), self.values(*peer, other));
                let _infallible = write!(text, " {} |", ratio(&this, &base));
            }
            text.push('\n');
        }
        text + "\n"
    }

    /// Processor seconds for a million messages, and syncs for each.
    fn costs_table(&self) -> String {
        let mut text = "| cost | peer | server CPU-s per 1M | client CPU-s per 1M | syncs per message |\n\
                        |---|---|---|---|---|\n"
            .to_owned();
        let mut cells: Vec<(&str, Peer)> = Vec::new();
        for sample in self.0.iter().filter(|sample| sample.cost.messages > 0) {
            if !cells.contains(&(sample.title, sample.peer)) {
                cells.push((sample.title, sample.peer));
            }
        }
        // Sorting is stable: titles stay in their order, the rotation of peers goes.
        let order = |title: &str| cells.iter().position(|cell| cell.0 == title);
        let mut sorted = cells.clone();
        sorted.sort_by_key(|(title, peer)| (order(title), *peer));
        for (title, peer) in sorted {
            let of = self.0.iter().filter(|sample| sample.title == title && sample.peer == peer);
            let costs: Vec<_> = of.map(|sample| sample.cost).collect();
            let millions = |messages: u64| messages as f64 / 1e6;
            let server = costs.iter().map(|cost| cost.server_cpu / millions(cost.messages));
            let client = costs.iter().map(|cost| cost.client_cpu / millions(cost.messages));
            let syncs = costs.iter().filter_map(|cost| Some(cost.syncs? as f64 / cost.messages as f64));
            let _infallible = writeln!(
                text,
                "| {title} | {} | {} | {} | {} |",
                peer.title(),
                shown(server, 1),
                shown(client, 1),
                shown(syncs, 4)
            );
        }
        text + "\n"
    }
}

fn shown(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let spread = Spread::of(&values.collect::<Vec<_>>());
    spread.map_or("–".to_owned(), |spread| format!("{:.digits$}", spread.median))
}

fn middle(values: &BTreeMap<u32, f64>, unit: Unit) -> String {
    let spread = Spread::of(&values.values().copied().collect::<Vec<_>>());
    spread.map_or("–".to_owned(), |spread| unit.show(spread.median))
}

/// The median of the ratios within rounds, and their range.
fn ratio(ours: &BTreeMap<u32, f64>, theirs: &BTreeMap<u32, f64>) -> String {
    let pairs = ours.iter().filter_map(|(round, value)| Some(value / theirs.get(round)?));
    match Spread::of(&pairs.collect::<Vec<_>>()) {
        Some(Spread { median, least, most }) => format!("**{median:.2}** ({least:.2}–{most:.2})"),
        None => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests;
