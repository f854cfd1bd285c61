//! The program itself, as a pod runs it: environment, signals, hooks, exit codes.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::app::{App, Reply, silent};
use crate::support::broker::Broker;
use crate::support::{get, policy, soon};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capstan-sidecar"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// The program with the environment of a container, and with nothing else.
fn in_container(broker: &Broker, admin: u16) -> Command {
    let mut command = program();
    command
        .env("CAPSTAN_BROKER_URL", broker.url())
        .env("CAPSTAN_NAMESPACE", "shop")
        .env("CAPSTAN_WORKLOAD", "Deployment/shop")
        .env("CAPSTAN_POD", "shop-1")
        .env("CAPSTAN_ADMIN_PORT", admin.to_string())
        .env("CAPSTAN_GATEWAY_PORT", own_port().to_string());
    command
}

/// A port that no other test gets.
fn own_port() -> u16 {
    let (socket, port) = silent();
    // Kept to the end of all tests.
    std::mem::forget(socket);
    port
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends with the test, also with one that fails.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.stderr(Stdio::piped()).spawn().unwrap())
    }

    fn terminate(&self) {
        self.signal("-TERM");
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").arg(signal).arg(self.0.id().to_string()).status().unwrap().success());
    }

    async fn ended(mut self) -> Output {
        let ended = async {
            while self.0.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the program ends", ended).await;
        let mut stderr = Vec::new();
        std::io::Read::read_to_end(&mut self.0.stderr.take().unwrap(), &mut stderr).unwrap();
        Output { status: self.0.wait().unwrap(), stdout: Vec::new(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
    assert!(program().arg("--version").output().unwrap().status.success());
}

#[test]
fn a_drain_without_a_sidecar_says_so_and_ends_with_1() {
    let (_socket, admin) = silent();
    let output = program().arg("drain").env("CAPSTAN_ADMIN_PORT", admin.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("did not drain"), "{}", stderr(&output));
}

#[tokio::test]
async fn an_idle_sidecar_ends_at_once() {
    let (_socket, admin) = silent();
    let app = App::start([]).await;
    let broker = Broker::start().await;
    broker.declare(vec![policy(app.port)]);
    let sidecar = Running::start(in_container(&broker, admin));
    broker.until("it pulls", |seen| seen.waiting == 1).await;
    let asked = Instant::now();
    sidecar.terminate();
    let output = sidecar.ended().await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

/// A SIGHUP before it is ignored.
#[tokio::test]
async fn it_pulls_within_a_tenth_of_a_second_of_its_start() {
    let app = App::start([]).await;
    let mut quickest = Duration::MAX;
    // The best of some: this machine may be busy.
    for _ in 0..5 {
        let (_socket, admin) = silent();
        let broker = Broker::start().await;
        broker.declare(vec![policy(app.port)]);
        let began = Instant::now();
        let _sidecar = Running::start(in_container(&broker, admin));
        broker.until("it pulls", |seen| seen.waiting == 1).await;
        quickest = quickest.min(began.elapsed());
    }
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
}

#[tokio::test]
async fn on_sigterm_the_open_call_is_finished() {
    let (_socket, admin) = silent();
    let app = App::start([Reply::held()]).await;
    let broker = Broker::start().await;
    broker.send(&["1"]);
    broker.declare(vec![policy(app.port)]);
    let sidecar = Running::start(in_container(&broker, admin));
    app.until("the call is open", |seen| seen.held == 1).await;
    sidecar.signal("-HUP");
    sidecar.terminate();
    broker.send(&["2"]);
    app.let_go(1);
    let output = sidecar.ended().await;
    assert!(output.status.success(), "{}", stderr(&output));
    broker.read(|seen| assert_eq!((seen.acked(), seen.ready.len()), (vec!["1".to_owned()], 1)));
}

#[tokio::test]
async fn the_drain_hook_returns_when_the_open_call_is_settled() {
    let (_socket, admin) = silent();
    let app = App::start([Reply::held()]).await;
    let broker = Broker::start().await;
    broker.send(&["1"]);
    let mut policy = policy(app.port);
    policy.concurrency_per_pod = 2;
    broker.declare(vec![policy]);
    let sidecar = Running::start(in_container(&broker, admin));
    app.until("the call is open", |seen| seen.held == 1).await;
    broker.until("the other slot pulls", |seen| seen.waiting == 1).await;

    let mut command = in_container(&broker, admin);
    command.arg("drain");
    let mut hook = Running::start(command);
    broker.until("nothing is pulled", |seen| seen.waiting == 0).await;
    broker.send(&["2"]);
    assert!(hook.0.try_wait().unwrap().is_none(), "it waits for the call");
    app.let_go(1);
    let output = hook.ended().await;
    assert!(output.status.success(), "{}", stderr(&output));
    broker.read(|seen| assert_eq!((seen.acked(), seen.ready.len()), (vec!["1".to_owned()], 1)));

    // The application is ended now; until that is done, the sidecar is there and does nothing.
    assert_eq!(get(([127, 0, 0, 1], admin).into(), "/livez").await.0, 200);
    sidecar.terminate();
    assert!(sidecar.ended().await.status.success());
    assert_eq!(broker.read(|seen| (seen.ready.len(), seen.released())), (1, vec![]));
}

#[tokio::test]
async fn the_log_names_messages_and_never_shows_bodies() {
    const SECRET: &str = "correct-horse-battery-staple";
    let (_socket, admin) = silent();
    let malformed = Reply::body(r#"{"explicitAcks": "1"}"#);
    let app = App::start([malformed, Reply::status(500), Reply::status(404)]).await;
    let broker = Broker::start().await;
    broker.change(|seen| {
        for id in ["message-1", "message-2", "message-3"] {
            let mut message = crate::support::broker::message(id);
            message.body = SECRET.to_owned();
            message.metadata.insert("CF-Content-Type".to_owned(), "text".to_owned());
            seen.ready.push_back(message);
        }
    });
    let mut policy = policy(app.port);
    policy.max_batch_size = 1;
    broker.declare(vec![policy]);
    let mut command = in_container(&broker, admin);
    command.env("CAPSTAN_LOG", "debug");
    let sidecar = Running::start(command);
    broker.until("all are settled", |seen| seen.settles.len() >= 3).await;
    assert!(
        app.read(|seen| seen.requests.iter().all(|request| request.body["messages"][0]["body"] == SECRET))
    );
    sidecar.terminate();
    let log = stderr(&sidecar.ended().await);
    for expected in ["message-1", "message-2", "the application answered 404", "\"level\":\"DEBUG\""] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    assert!(!log.contains(SECRET), "{log}");
}
