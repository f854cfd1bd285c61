//! Local mode from start to end.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{App, DEADLINE, Dev, NOBODY, capstan, ended, example, get, repository, yaml};

/// The arguments of `cargo demo` after the files, with the application as it was built for this test.
fn demo() -> Vec<String> {
    let config = std::fs::read_to_string(repository().join(".cargo/config.toml")).unwrap();
    let (_, array) = config.split_once("demo = ").expect("an alias `demo`");
    let (array, _) = array.split_once("\n]").expect("an array");
    // An array of strings reads the same in TOML and in YAML.
    let args: Vec<String> = serde_yaml::from_str(&format!("{array}]")).unwrap();
    let start = args.iter().position(|arg| arg == "dev").expect("it runs `dev`");
    assert_eq!(args[start + 1], "examples/quickstart");
    let mut args = args[start + 2..].to_vec();
    let app = args.iter().position(|arg| arg == "--app").expect("it starts the application");
    args[app + 1] = example();
    args
}

/// What the README's first command shows.
#[test]
fn the_quickstart_runs_from_sends_to_dead_letter() {
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let args = demo();
    let sends = args.iter().filter(|arg| *arg == "--send").count() as u64;
    let dev = Dev::start(&files, data.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    dev.wait(&["Not run here: Deployment orders"]);
    dev.wait(&["orders", "sent", "4 messages"]);
    let dead = dev.wait(&["dead-lettered", "→ orders-dlq after 4 deliveries"]);
    let listening = dev.wait(&["taking orders on port"]);
    let handled = get(listening.split_whitespace().last().unwrap(), "/handled");
    assert_eq!(
        (&handled["handled"], &handled["failed"], &handled["distinct"]),
        (&json!(sends - 1), &json!(4), &json!(sends - 1))
    );

    let id = dead.split_whitespace().find(|word| word.starts_with('#')).unwrap().to_owned();
    let lines = dev.lines();
    for delivery in 1..=3 {
        let retried = |line: &&String| {
            line.contains("retried") && line.contains(&format!("{id} delivery {delivery} of 4"))
        };
        assert_eq!(lines.iter().filter(retried).count(), 1, "delivery {delivery}:\n{}", lines.join("\n"));
    }
    let letters = dev.client(&["peek", "orders-dlq", "-o", "json"]).objects();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0]["body"]["id"], &letters[0]["body"]["fail"]), (&json!(3), &json!(true)));
    assert_eq!((dev.backlog("orders"), dev.backlog("orders-dlq")), (0, 1));
    let lines = dev.interrupt();
    assert!(lines.last().unwrap().ends_with("1 message in orders-dlq"), "{lines:?}");
}

#[test]
fn what_was_not_handled_is_there_at_the_next_start() {
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let dev = Dev::start(&files, data.path(), &["--app-port", NOBODY]);
    let done = dev.client(&["send", "orders", r#"{"id": 1}"#, r#"{"id": 2}"#]);
    assert_eq!(done.code, Some(0), "{done:?}");
    dev.wait(&["waiting", "until the application listens on port 1"]);
    let lines = dev.interrupt();
    assert!(lines.last().unwrap().ends_with("2 messages in orders"), "{lines:?}");

    // Also when it was killed.
    let mut dev =
        Dev::start(&files, data.path(), &["--app-port", NOBODY, "--send", "orders", r#"{"id": 3}"#]);
    dev.wait(&["from before: 2 messages in orders"]);
    dev.wait(&["orders", "sent", "1 message"]);
    dev.signal(Signal::KILL);
    dev.ended();

    let dev = Dev::start(&files, data.path(), &["--app", &example(), "--app-port", "0"]);
    dev.wait(&["from before: 3 messages in orders"]);
    for id in 1..=3 {
        dev.wait(&["app", &format!("order {{\"id\":{id}}} handled (attempt 1)")]);
    }
    let lines = dev.interrupt();
    assert!(lines.last().unwrap().ends_with("nothing is left"), "{lines:?}");
}

#[test]
fn ctrl_c_finishes_open_calls() {
    let (files, data, app) =
        (repository().join("examples/quickstart"), tempfile::tempdir().unwrap(), App::start());
    let mut dev =
        Dev::start(&files, data.path(), &["--app-port", &app.port(), "--send", "orders", r#"{"id": 1}"#]);
    let call = app.call();
    assert_eq!(call.batch["messages"][0]["body"], json!({"id": 1}));
    dev.signal(Signal::INT);
    dev.wait(&["ending"]);
    call.answer(200, "");
    assert_eq!(dev.ended().code(), Some(0));
    dev.wait(&["orders", "acknowledged"]);
    dev.wait(&["ended; nothing is left"]);
}

#[test]
fn a_second_ctrl_c_cuts_them_and_their_messages_stay() {
    let (files, data, app) =
        (repository().join("examples/quickstart"), tempfile::tempdir().unwrap(), App::start());
    let mut dev =
        Dev::start(&files, data.path(), &["--app-port", &app.port(), "--send", "orders", r#"{"id": 1}"#]);
    let _never_answered = app.call();
    dev.signal(Signal::INT);
    dev.wait(&["ending"]);
    dev.signal(Signal::INT);
    assert_eq!(dev.ended().code(), Some(130));
    dev.wait(&["ended; kept in", "1 message in orders"]);
}

#[test]
fn without_push_consumers_it_is_simply_a_broker() {
    let files = yaml(
        "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: jobs, namespace: shop}}\n---\n\
         {apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {name: jobs, namespace: shop}, spec: {queueRef: {name: jobs}}}",
    );
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(files.path(), data.path(), &["--send", "jobs", "[1]"]);
    dev.wait(&["jobs", "sent", "1 message"]);
    let pulled = dev.client(&["pull", "-n", "shop", "jobs", "--ack", "-o", "json"]).objects();
    assert_eq!(pulled[0]["body"], json!([1]));
    dev.wait(&["jobs", "acknowledged", "1 message"]);
    dev.interrupt();
}

/// It has none of a queue whose file says so.
#[test]
fn messages_of_queues_without_file_go_where_they_are_to_be_deleted() {
    let queue = |name: &str, uid: &str| {
        yaml(&format!(
            "{{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {{name: {name}, uid: {uid}}}, spec: {{deletionPolicy: Delete}}}}"
        ))
    };
    let data = tempfile::tempdir().unwrap();
    let (old, same, new) = (queue("old", "a"), queue("old", "b"), queue("new", "c"));
    let dev = Dev::start(old.path(), data.path(), &["--send", "old", "1"]);
    dev.wait(&["old", "sent"]);
    dev.interrupt();
    // A file of that name is the same queue, wherever its object came from.
    let dev = Dev::start(same.path(), data.path(), &[]);
    dev.wait(&["from before: 1 message in old"]);
    dev.interrupt();
    let dev = Dev::start(new.path(), data.path(), &[]);
    dev.wait(&["purged: 1 message of old; no file has it any more, and deletionPolicy was Delete"]);
    let lines = dev.interrupt();
    assert!(lines.last().unwrap().ends_with("nothing is left"), "{lines:?}");
}

/// A queue that no file has any more keeps its messages.
#[test]
fn messages_of_queues_without_file_are_kept() {
    let queue = |name| {
        yaml(&format!("{{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {{name: {name}}}}}"))
    };
    let (old, new, data) = (queue("old"), queue("new"), tempfile::tempdir().unwrap());
    let dev = Dev::start(old.path(), data.path(), &["--send", "old", "1"]);
    dev.wait(&["old", "sent"]);
    dev.interrupt();
    let dev = Dev::start(new.path(), data.path(), &[]);
    dev.wait(&["from before: 1 message in old, which no file has any more"]);
    let done = dev.client(&["send", "old", "2"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let lines = dev.interrupt();
    assert!(lines.last().unwrap().ends_with("1 message in old"), "{lines:?}");
}

#[test]
fn workloads_that_wait_for_one_port_say_so_once() {
    let one = |n: u32| {
        format!(
            "{{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {{name: q{n}}}}}\n---\n\
             {{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {{name: c{n}}}, spec: \
             {{queueRef: {{name: q{n}}}, targetRef: {{kind: Deployment, name: d{n}}}}}}}"
        )
    };
    let files = yaml(&(1..=5).map(one).collect::<Vec<_>>().join("\n---\n"));
    let (data, app) = (tempfile::tempdir().unwrap(), App::start());
    let port = app.port();
    app.stop();
    let dev = Dev::start(files.path(), data.path(), &["--app-port", &port]);
    dev.wait(&["waiting", "until the application listens"]);
    let app = App::start_on(port.parse().unwrap());
    for n in 1..=5 {
        let queue = format!("q{n}");
        assert_eq!(dev.client(&["send", &queue, "1"]).code, Some(0));
        app.call().answer(200, "");
        dev.wait(&[&queue, "acknowledged"]);
    }
    let lines = dev.interrupt();
    let said = lines.iter().filter(|line| line.contains("until the application listens")).count();
    assert_eq!(said, 1, "{}", lines.join("\n"));
}

/// Each delivery has a connection.
#[test]
fn it_takes_as_many_open_files_as_it_may_have() {
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -S -n 256 && ulimit -H -n 1024 && exec "$0" "$@""#]);
    let dev = Dev::start_as(limited, &files, data.path(), &["--app-port", NOBODY]);
    dev.url();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", dev.id())).unwrap();
    let open = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let open: Vec<&str> = open.split_whitespace().skip(3).take(2).collect();
    assert_eq!(open, ["1024", "1024"], "soft and hard");
    dev.interrupt();
}

#[test]
fn a_signal_ends_it_while_it_waits_for_standard_input() {
    let data = tempfile::tempdir().unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let mut command = capstan();
        command.args(["dev", "-", "--listen", "127.0.0.1:0", "--data"]).arg(data.path());
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        catches(&child, signal);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        assert_eq!(ended(&mut child).expect("it ends").code(), Some(0), "{signal:?}");
    }
    assert!(data.path().read_dir().unwrap().next().is_none(), "nothing was begun");
}

/// Waits until a process has a handler for a signal: sooner it would end by it in any case.
fn catches(child: &Child, signal: Signal) {
    let until = Instant::now() + DEADLINE;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        if caught & (1 << (signal.as_raw() - 1)) != 0 {
            return;
        }
        assert!(Instant::now() < until, "it does not listen for {signal:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As in `capstan dev … | head`.
#[test]
fn it_ends_when_nobody_reads_it_any_more() {
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let mut command = capstan();
    command.arg("dev").arg(files).args(["--listen", "127.0.0.1:0", "--app-port", "0"]);
    command.args(["--app", "while echo x; do sleep 0.1; done", "--data"]).arg(data.path());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("capstan dev"), "{line}");
    assert_eq!(ended(&mut child).expect("it ends").code(), Some(0));
}

/// As beside another `capstan dev`.
#[test]
fn a_gateway_whose_usual_port_is_taken_has_another_and_says_so() {
    // Held here, or by another program.
    let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, 9797));
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let dev = Dev::start(&files, data.path(), &["--app-port", "1", "--listen", &free]);
    dev.wait(&["Sends", "gateway; 9797 is taken"]);
    assert!(!dev.gateway().ends_with(":9797") && dev.url().ends_with(&free));
}
