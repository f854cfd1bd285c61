//! The program itself: exit codes and signals.

use std::process::{Command, Output, Stdio};

use crate::support::app::{App, Reply};
use crate::support::broker::Broker;
use crate::support::{policy, soon};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capstan-sidecar"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_environment_is_named_and_ends_with_64() {
    let output = program().output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("CAPSTAN_BROKER_URL is not set"), "{}", stderr(&output));
    let output = program().arg("drian").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let output = program().arg("drain").env("CAPSTAN_ADMIN_PORT", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(program().arg("--help").output().unwrap().status.success());
}

#[tokio::test]
async fn sigterm_drains_and_ends_with_0() {
    let app = App::start([Reply::held()]).await;
    let broker = Broker::start().await;
    broker.send(&["1"]);
    broker.declare(vec![policy(app.port)]);
    let (_socket, admin) = crate::support::app::silent();
    drop(_socket);
    let mut child = program()
        .env("CAPSTAN_BROKER_URL", broker.url())
        .env("CAPSTAN_NAMESPACE", "shop")
        .env("CAPSTAN_WORKLOAD", "Deployment/shop")
        .env("CAPSTAN_POD", "shop-1")
        .env("CAPSTAN_ADMIN_PORT", admin.to_string())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    app.until("the call is open", |seen| seen.held == 1).await;
    let drain = program().arg("drain").env("CAPSTAN_ADMIN_PORT", admin.to_string()).spawn().unwrap();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    app.let_go(1);
    let wait = tokio::task::spawn_blocking(move || child.wait().unwrap());
    assert_eq!(soon("the program ends", wait).await.unwrap().code(), Some(0));
    assert_eq!(broker.read(|seen| seen.acked()), ["1"]);
    let _ = tokio::task::spawn_blocking(move || {
        let mut drain = drain;
        drain.wait().unwrap();
    })
    .await;
}
