//! Where the programs under test are, and what they log.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

/// Lines of a log that are kept for a failure's message.
const LINES_MAX: usize = 200;

/// The path of a program of this workspace, built with the same profile as the test that asks.
///
/// # Panics
/// When it is missing, or older than its sources: a test must not pass with the program of yesterday.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = folder.join(name);
    let advice = "run `cargo build --workspace --bins` (`cargo xtask test` does it)";
    let built = path.metadata().and_then(|data| data.modified());
    let built = built.unwrap_or_else(|error| panic!("{} cannot be used: {error}; {advice}", path.display()));
    let listed = path.with_extension("d");
    let listed = std::fs::read_to_string(&listed)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}; {advice}", listed.display()));
    let (_, sources) = listed.split_once(':').expect("a list of sources as compilers write it");
    // Spaces within a path are written with a backslash.
    for source in sources.replace("\\ ", "\0").split_whitespace().map(|path| path.replace('\0', " ")) {
        let changed = Path::new(&source).metadata().and_then(|data| data.modified());
        assert!(
            changed.is_ok_and(|changed| changed <= built),
            "{} is older than {source}; {advice}",
            path.display()
        );
    }
    path
}

/// Says how far a long test is. It goes past the test runner, which would keep it until the test failed.
pub fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The last lines that a program wrote.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Reads `output` on a thread of its own until it ends; each line also goes to the receiver, while there is one.
    pub fn follow(output: impl Read + Send + 'static) -> (Self, Receiver<String>) {
        let (log, (tell, told)) = (Self::default(), mpsc::channel());
        let following = log.clone();
        std::thread::spawn(move || following.read(output, &tell));
        (log, told)
    }

    fn read(&self, output: impl Read, tell: &Sender<String>) {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut lines = self.0.lock().unwrap();
            if lines.len() == LINES_MAX {
                lines.remove(0);
            }
            lines.push(line.clone());
            drop(lines);
            let _ = tell.send(line);
        }
    }

    /// The last lines.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl std::fmt::Display for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}
