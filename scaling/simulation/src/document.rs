//! The tables and plots in docs/scaling.md.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::plot;
use crate::run::Results;
use crate::table;

const BEGIN: &str = "<!-- simulation: begin, written by `cargo xtask simulate --write` -->\n";
const END: &str = "<!-- simulation: end -->";

/// The files that are written, and what has to be in them.
///
/// # Errors
/// The document is not there, or has no markers.
pub fn files(root: &Path, results: &[Results]) -> Result<Vec<(PathBuf, String)>> {
    let document = root.join("docs/scaling.md");
    let text = std::fs::read_to_string(&document).with_context(|| document.display().to_string())?;
    let mut files = vec![(document, between(&text, results)?)];
    for result in results {
        files.push((root.join(format!("docs/scaling/{}.svg", result.pattern.file)), plot::svg(result)));
    }
    Ok(files)
}

fn between(text: &str, results: &[Results]) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("docs/scaling.md lost its first marker")?;
    let (_, after) = rest.split_once(END).context("docs/scaling.md lost its second marker")?;
    let section = |results: &Results| {
        let (name, file) = (results.pattern.name, results.pattern.file);
        format!(
            "{}\n![{name}: pods and waiting messages over time](scaling/{file}.svg)\n\n",
            table::of(results)
        )
    };
    let sections: String = results.iter().map(section).collect();
    Ok(format!("{before}{BEGIN}\n{sections}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run;

    #[test]
    fn files_are_up_to_date() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (path, text) in files(&root, &run::all()).unwrap() {
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == text, "{} is stale: cargo xtask simulate --write", path.display());
        }
    }
}
