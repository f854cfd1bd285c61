//! The YAML in the repository is what the Rust types say. `cargo xtask generate` rewrites it, by `UPDATE=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn files_are_up_to_date() {
    let mut compared = 0;
    for definition in capstan_crds::definitions() {
        let name = definition["spec"]["names"]["plural"].as_str().unwrap();
        let text = capstan_crds::yaml(&definition).unwrap();
        for folder in ["crds/yaml", "charts/capstan-crds/templates"] {
            let path = root().join(folder).join(format!("{name}.yaml"));
            if std::env::var_os("UPDATE").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == text, "{} is stale: cargo xtask generate", path.display());
            compared += 1;
        }
    }
    assert_eq!(compared, 6);
}
