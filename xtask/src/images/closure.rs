//! The shared libraries that a program needs, as the dynamic loader finds them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// Loaded by name when a program resolves host names. From glibc 2.34 on, its code is in libc itself and these are empty.
const RESOLVER: [&str; 3] = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"];

/// Every library of `program`, the loader among them, by the path at which the loader looks; nothing for a static program.
///
/// # Errors
/// A library is not on this machine, or `ldd` is not.
pub fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut command = Command::new("ldd");
    // What is said by ldd must be in English to be read.
    command.arg(program).env("LC_ALL", "C");
    let mut lines = Vec::new();
    let status = run::listen(&mut command, |event| {
        if let run::Event::Out(line) | run::Event::Err(line) = event {
            lines.push(line.to_owned());
        }
    })?;
    if lines
        .iter()
        .any(|line| line.contains("not a dynamic executable") || line.contains("statically linked"))
    {
        return Ok(BTreeSet::new());
    }
    run::ensure(&command, status, &lines)?;
    let mut found = BTreeSet::new();
    for line in &lines {
        found.extend(parse(line).with_context(|| format!("in {}", program.display()))?);
    }
    let libc = found
        .iter()
        .find(|path| path.ends_with("libc.so.6"))
        .and_then(|path| path.parent())
        .map(Path::to_path_buf);
    if let Some(folder) = libc {
        found.extend(RESOLVER.map(|name| folder.join(name)).into_iter().filter(|path| path.exists()));
    }
    Ok(found)
}

/// The path in a line of `ldd`; none in that of the kernel's own library.
fn parse(line: &str) -> Result<Option<PathBuf>> {
    let line = line.trim();
    let place = line.split_once(" => ").map_or(line, |(_, place)| place);
    if place == "not found" {
        bail!("the library {line:?} is not on this machine: install it");
    }
    let path = place.split(" (0x").next().unwrap_or(place);
    Ok(path.starts_with('/').then(|| PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ldd() {
        let path = |line| parse(line).unwrap().map(|path| path.display().to_string());
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007ffd5a9f2000)"), None);
        assert_eq!(
            path("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f9c)").as_deref(),
            Some("/lib/x86_64-linux-gnu/libc.so.6")
        );
        assert_eq!(
            path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f9c)").as_deref(),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        let error = parse("\tlibzstd.so.1 => not found").unwrap_err().to_string();
        assert!(error.contains("libzstd.so.1"), "{error}");
    }

    #[test]
    fn this_program_has_a_loader_and_a_libc() {
        let found = libraries(&std::env::current_exe().unwrap()).unwrap();
        let has = |part: &str| found.iter().any(|path| path.to_string_lossy().contains(part));
        assert!(has("/ld-") && has("/libc.so"), "{found:?}");
    }
}
