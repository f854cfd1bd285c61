//! Other people's SDKs as clients: scripts of `tests/clients`, and the JSON that they print.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `tests/clients/npm/SCRIPT` with Cloudflare's npm SDK.
///
/// # Panics
/// When the SDK is not installed, or the script fails.
pub fn node(script: &str, arguments: &[&str]) -> Value {
    let folder = folder().join("npm");
    let sdk = folder.join("node_modules/cloudflare/package.json");
    assert!(sdk.is_file(), "{} is missing: run `cargo xtask setup`", sdk.display());
    run(Command::new("node").arg(folder.join(script)).args(arguments))
}

/// Runs `tests/clients/python/SCRIPT` with Cloudflare's Python SDK.
///
/// # Panics
/// When the SDK is not installed, or the script fails.
pub fn python(script: &str, arguments: &[&str]) -> Value {
    let python = cache().join("clients-python/bin/python");
    assert!(python.is_file(), "{} is missing: run `cargo xtask setup`", python.display());
    run(Command::new(python).arg(folder().join("python").join(script)).args(arguments))
}

/// Runs the program of `tests/clients/go`, which speaks with Cloudflare's Go SDK.
///
/// # Panics
/// When it was not built, or fails.
pub fn go(arguments: &[&str]) -> Value {
    let program = cache().join("clients-go/tour");
    assert!(program.is_file(), "{} is missing: run `cargo xtask setup`", program.display());
    run(Command::new(program).args(arguments))
}

fn run(command: &mut Command) -> Value {
    // Both would send a request for this machine elsewhere, if they are set.
    command.env_remove("HTTP_PROXY").env_remove("http_proxy");
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let (told, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}:\n{told}\n{said}");
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{command:?} printed no JSON: {error}\n{told}"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Where `cargo xtask setup` keeps what is not in the checkout.
fn cache() -> PathBuf {
    if let Some(folder) = std::env::var_os("CAPSTAN_CACHE") {
        return folder.into();
    }
    PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/capstan")
}
