//! The program itself: what signals do to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(60);

/// SIGHUP alone would end it at once, and not with success.
#[tokio::test]
async fn a_hangup_is_ignored_and_sigterm_ends_it_well() {
    // An API server that never answers. Who comes to it listens for signals already.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("config");
    let cluster = format!(
        "{{clusters: [{{name: a, cluster: {{server: 'http://{}'}}}}], users: [{{name: a, user: {{}}}}],
        contexts: [{{name: a, context: {{cluster: a, user: a}}}}], current-context: a}}",
        server.local_addr().unwrap()
    );
    std::fs::write(&kubeconfig, cluster).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_capstan-operator"));
    program.env_clear().env("KUBECONFIG", &kubeconfig).env("CAPSTAN_LISTEN", "127.0.0.1:0");
    program.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let program = program.spawn().unwrap();
    let _connection = tokio::time::timeout(SOON, server.accept()).await.expect("it connects").unwrap();
    for signal in ["-HUP", "-TERM"] {
        let id = program.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
    let output = tokio::time::timeout(SOON, program.wait_with_output()).await.expect("it ends").unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}
