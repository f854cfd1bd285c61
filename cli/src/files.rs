//! Reads the YAML of the command line: files, folders, standard input.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// What `kubectl apply -f` takes from a folder too.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Largest file; what is larger is no resource.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A YAML text and where it comes from.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) file: String,
    pub(crate) text: String,
}

/// Reads all of them, folders by name.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = text("standard input", &mut std::io::stdin().lock())?;
            documents.push(Document { file: "standard input".to_owned(), text });
        } else if path.is_dir() {
            for file in folder(path)? {
                documents.push(one(&file)?);
            }
        } else {
            documents.push(one(path)?);
        }
    }
    Ok(documents)
}

fn folder(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| unreadable(path, &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let extension = file.extension().and_then(OsStr::to_str);
        if extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        let kinds = EXTENSIONS.join(", ");
        return Err(Failure::Refused(format!(
            "{}: no files with the endings {kinds} in this folder",
            path.display()
        )));
    }
    files.sort();
    Ok(files)
}

fn one(path: &Path) -> Result<Document, Failure> {
    let mut file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let name = path.display().to_string();
    let text = text(&name, &mut file)?;
    Ok(Document { file: name, text })
}

fn text(name: &str, source: &mut impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = source.take(BYTES_MAX + 1).read_to_string(&mut text);
    let bytes = read.map_err(|error| Failure::Refused(format!("{name}: {error}")))?;
    if bytes as u64 > BYTES_MAX {
        return Err(Failure::Refused(format!(
            "{name}: larger than {BYTES_MAX} bytes; that is no Kubernetes object"
        )));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Refused(format!("{}: {error}", path.display()))
}
