//! What is said at the start: what runs, where the data lies, how to send more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use capstan_api::control::{ConsumerPolicy, PushPolicy, QueuePolicy, QueueState};
use console::style;

use super::args::DevArgs;
use super::broker::Embedded;
use super::gateway;
use super::plan::{Plan, listed};
use super::ports::Ports;
use super::view::Labels;
use crate::failure::Failure;
use crate::output::messages;

/// Queues that are listed.
const QUEUES_MAX: usize = 20;

/// The text, with its colours.
pub(super) async fn text(
    args: &DevArgs,
    plan: &Plan,
    ports: &Ports,
    broker: &Embedded,
    gateway: &gateway::Running,
) -> Result<String, Failure> {
    let url = broker.url();
    let mut text = format!("{} {}\n\n", style("capstan dev").bold(), env!("CARGO_PKG_VERSION"));
    text.push_str(&format!("  API    {}\n", style(&url).cyan()));
    let taken = gateway.taken().map(|port| format!("; {port} is taken")).unwrap_or_default();
    text.push_str(&format!("  Sends  {}  (the applications' gateway{taken})\n", style(gateway.url()).cyan()));
    text.push_str(&format!("  Data   {}{}\n", args.data.display(), kept(plan, broker).await?));
    if let Some(command) = &args.app {
        let port = ports.app.map(|port| format!("  (PORT={port})")).unwrap_or_default();
        text.push_str(&format!("  App    {command}{port}\n"));
    }
    if !plan.ignored.is_empty() {
        text.push_str(&format!("  Not run here: {}\n", plan.ignored.join(", ")));
    }
    text.push_str(&queues(plan));
    if let Some(queue) = example(plan) {
        text.push_str(&more(&url, args, queue));
    }
    text.push_str("\nCtrl-C ends it. What is not handled by then is kept.\n\n");
    Ok(text)
}

/// What is there from before.
async fn kept(plan: &Plan, broker: &Embedded) -> Result<String, Failure> {
    let state = broker.control().state().await.map_err(|error| Failure::Refused(error.to_string()))?;
    let labels = Labels::of(&plan.declaration);
    let mut parts = Vec::new();
    let mut left = BTreeSet::new();
    for queue in &state.queues {
        let count = count(queue);
        if count > 0 {
            left.insert((&queue.namespace, &queue.name));
            let label = labels.label(&queue.namespace, &queue.name);
            let gone = if queue.retained { ", which no file has any more" } else { "" };
            parts.push(format!("{} in {label}{gone}", messages(count)));
        }
    }
    let mut text = String::new();
    if !parts.is_empty() {
        text.push_str(&format!("  (from before: {})", parts.join("; ")));
    }
    let declared: BTreeSet<_> =
        plan.declaration.queues.iter().map(|queue| (&queue.namespace, &queue.name)).collect();
    let purged = |queue: &&QueueState| {
        let key = (&queue.namespace, &queue.name);
        count(queue) > 0 && !left.contains(&key) && !declared.contains(&key)
    };
    let purged = broker.before().iter().filter(purged).map(|queue| {
        format!("{} of {}", messages(count(queue)), labels.label(&queue.namespace, &queue.name))
    });
    let purged: Vec<String> = purged.collect();
    if !purged.is_empty() {
        let why = "no file has it any more, and deletionPolicy was Delete";
        text.push_str(&format!("  (purged: {}; {why})", listed(&purged)));
    }
    Ok(text)
}

const fn count(queue: &QueueState) -> u64 {
    queue.ready + queue.delayed + queue.leased + queue.dead
}

fn queues(plan: &Plan) -> String {
    let labels = Labels::of(&plan.declaration);
    let mut text = "\n".to_owned();
    for policy in plan.declaration.queues.iter().take(QUEUES_MAX) {
        let label = labels.label(&policy.namespace, &policy.name);
        let (name, width) = (style(&label).bold(), labels.width());
        let pad = " ".repeat(width.saturating_sub(label.chars().count()));
        text.push_str(&format!("  {name}{pad}   {}\n", role(plan, policy)));
        if let Some(consumer) = &policy.consumer {
            text.push_str(&format!("  {:width$}   {}\n", "", rules(consumer)));
        }
    }
    if let Some(more) = plan.declaration.queues.len().checked_sub(QUEUES_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

fn role(plan: &Plan, policy: &QueuePolicy) -> String {
    match policy.consumer.as_ref().map(|consumer| (&consumer.name, &consumer.push)) {
        Some((_, Some(push))) => {
            let PushPolicy { workload, endpoint, .. } = push;
            let (kind, name) = (workload.kind.as_str(), &workload.name);
            format!("→ http://127.0.0.1:{}{}  (here for {kind} {name})", endpoint.port, endpoint.path)
        }
        Some((name, None)) => format!("pull Consumer {name}"),
        None if plan.implicit.contains(&format!("{}/{}", policy.namespace, policy.name)) => {
            "dead-letter queue, created because a Consumer names it".to_owned()
        }
        None => "no Consumer".to_owned(),
    }
}

fn rules(consumer: &ConsumerPolicy) -> String {
    let mut parts = Vec::new();
    if let Some(push) = &consumer.push {
        parts.push(format!(
            "batches of up to {}, gathered for {}",
            push.max_batch_size,
            time(push.max_wait_ms)
        ));
    }
    let (retries, delay) = (consumer.max_retries, time(consumer.retry_delay_ms));
    parts.push(format!("{retries} retries, {delay} apart"));
    match &consumer.dead_letter_queue {
        Some(queue) => parts.push(format!("then {queue}")),
        None => parts.push("then dropped".to_owned()),
    }
    if consumer.paused {
        parts.push("paused".to_owned());
    }
    parts.join("; ")
}

/// The queue that the examples send to: the first that someone consumes.
fn example(plan: &Plan) -> Option<&QueuePolicy> {
    let queues = &plan.declaration.queues;
    queues.iter().find(|queue| queue.consumer.is_some()).or_else(|| queues.first())
}

fn more(url: &str, args: &DevArgs, queue: &QueuePolicy) -> String {
    let (namespace, name) = (&queue.namespace, &queue.name);
    let program = program();
    let mut place = String::new();
    if args.listen != default_address() {
        place.push_str(&format!(" --url {url}"));
    }
    if namespace.as_str() != "default" {
        place.push_str(&format!(" -n {namespace}"));
    }
    format!(
        "\n  {title}\n    \
         {program} send{place} {name} '{{\"id\": 7}}'\n    \
         curl -d '{{\"body\": {{\"id\": 7}}}}' {url}/client/v4/accounts/{namespace}/queues/{name}/messages\n    \
         {npm}\n    \
         new Cloudflare({{ baseURL: '{url}/client/v4', apiToken: 'none' }})\n      \
         .queues.messages.push('{name}', {{ account_id: '{namespace}', body: {{ id: 7 }} }})\n",
        title = style("Send more").bold(),
        npm = style("// npm install cloudflare; any of its SDKs").dim(),
    )
}

fn default_address() -> std::net::SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, capstan_api::BROKER_PORT).into()
}

/// How this program is called from the same shell.
fn program() -> String {
    let name = env!("CARGO_BIN_NAME");
    let Ok(program) = std::env::current_exe() else { return name.to_owned() };
    let in_path = |folder: PathBuf| is_same(&folder.join(name), &program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(in_path) {
        return name.to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    let text = program.strip_prefix(&here).unwrap_or(&program).display().to_string();
    if text.contains(char::is_whitespace) { format!("'{text}'") } else { text }
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Milliseconds as YAML writes them.
fn time(millis: u64) -> String {
    if millis.is_multiple_of(1000) {
        capstan_crds::Duration::from_seconds(millis / 1000).as_str().to_owned()
    } else {
        format!("{millis}ms")
    }
}
