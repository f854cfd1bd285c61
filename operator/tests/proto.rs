//! What is generated from `proto/externalscaler.proto` is current.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

/// How each source file of the repository opens.
const HEAD: &str =
    "//! KEDA's external scaler as Rust: made from `proto/externalscaler.proto` by `cargo xtask generate`.\n";

#[test]
fn files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let files = protox::compile(["externalscaler.proto"], [root.join("proto")]).unwrap();
    let builder = tonic_prost_build::configure().build_client(false).build_transport(false);
    builder.out_dir(folder.path()).compile_fds(files).unwrap();
    let text = HEAD.to_owned() + &std::fs::read_to_string(folder.path().join("externalscaler.rs")).unwrap();
    let path = root.join("src/external_scaler/generated.rs");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == text, "{} is stale: cargo xtask generate", path.display());
}
