//! `capstan send`.

use std::collections::BTreeMap;

use capstan_api::idempotency::InvalidKey;
use capstan_api::limits::{BATCH_BYTES_DEFAULT, BATCH_COUNT_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use capstan_api::message::{Attributes, ContentType, Send, SendBatch};
use capstan_api::number::Number;
use capstan_api::{Client, IdempotencyKey, Name};
use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::body::{raw_json, raw_text};
use super::{Target, delay};
use crate::failure::Failure;
use crate::output::{Format, messages, print, print_lines};

/// Sends up to so many are listed by id.
const LISTED_MAX: u64 = 10;
/// Longest key: what a broker takes, less `/` and the largest number.
const KEY_BYTES_MAX: usize = IDEMPOTENCY_KEY_BYTES_MAX - 21;
/// What `--count` replaces by the number of the message.
const NUMBER: &str = "{i}";

/// Send messages to a queue
///
/// Returns when they are on disk: an exit code of 0 means that every message is stored.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capstan send orders '{\"id\": 1}'
  capstan send orders '{\"id\": {i}}' --count 1000
  capstan send mails --text 'Hello' --delay 5m
  jq -c '.[]' orders.json | capstan send orders - --idempotency-key import-7")]
pub(crate) struct SendArgs {
    /// The queue.
    queue: Name,
    /// JSON, each a message; `-` reads one per line from standard input.
    #[arg(value_name = "BODY", required = true, allow_negative_numbers = true)]
    bodies: Vec<String>,
    /// Bodies are texts, not JSON.
    #[arg(long)]
    text: bool,
    /// Deliver later, such as 30s or 5m; at most 24h. Default: the queue's deliveryDelay.
    #[arg(long, value_name = "TIME", value_parser = delay)]
    delay: Option<u64>,
    /// Send each body so many times; {i} in it becomes 1, 2, 3 …
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// A string that travels with the message; may be given several times.
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// Run again with the same key and bodies within five minutes, it stores nothing twice. What needs several requests sends
    /// KEY, KEY/2, KEY/3 …; KEY has 107 characters at most.
    #[arg(long, value_name = "KEY", value_parser = key)]
    idempotency_key: Option<IdempotencyKey>,
    #[command(flatten)]
    target: Target,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Takes a key that has room for the number of any further request: how many there will be, nobody knows who reads lines.
fn key(text: &str) -> Result<IdempotencyKey, String> {
    let key: IdempotencyKey = text.parse().map_err(|error: InvalidKey| error.to_string())?;
    let length = key.as_str().len();
    if length <= KEY_BYTES_MAX {
        return Ok(key);
    }
    Err(format!(
        "a key is at most {KEY_BYTES_MAX} characters here, this one {length}: a further request adds / and its number"
    ))
}

/// Runs it.
pub(crate) async fn send(args: SendArgs) -> Result<(), Failure> {
    let mut sender = Sender::new(&args)?;
    if args.bodies == ["-"] {
        if args.count.is_some() {
            return Err(Failure::Usage(
                "--count repeats the bodies of the command line; it cannot repeat `-`".to_owned(),
            ));
        }
        from_input(&args, &mut sender).await?;
    } else {
        // All are checked before any is sent.
        let count = args.count.unwrap_or(1);
        for template in &args.bodies {
            body(&args, &numbered(&args, template, 1)).map_err(Failure::Usage)?;
        }
        for template in &args.bodies {
            for i in 1..=count {
                let body = body(&args, &numbered(&args, template, i)).map_err(Failure::Usage)?;
                sender.add(body).await?;
            }
        }
    }
    sender.finish().await
}

fn numbered(args: &SendArgs, template: &str, i: u64) -> String {
    if args.count.is_some() { template.replace(NUMBER, &i.to_string()) } else { template.to_owned() }
}

fn body(args: &SendArgs, text: &str) -> Result<Box<RawValue>, String> {
    if args.text { raw_text(text) } else { raw_json(text) }
}

async fn from_input(args: &SendArgs, sender: &mut Sender<'_>) -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut number = 0u64;
    loop {
        let line = lines
            .next_line()
            .await
            .map_err(|e| Failure::Refused(format!("cannot read standard input: {e}")))?;
        let Some(line) = line else { return Ok(()) };
        number += 1;
        if line.trim().is_empty() {
            continue;
        }
        match body(args, &line) {
            Ok(body) => sender.add(body).await?,
            Err(why) => {
                sender.flush().await?;
                let sent = messages(sender.sent);
                return Err(Failure::Refused(format!(
                    "line {number}: {why}\nThe {sent} before it stay sent."
                )));
            }
        }
    }
}

/// Sends in batches as large as the broker takes.
struct Sender<'a> {
    args: &'a SendArgs,
    client: Client,
    waiting: Vec<Box<RawValue>>,
    bytes: usize,
    requests: u64,
    sent: u64,
    backlog: u64,
    last: Vec<String>,
}

impl<'a> Sender<'a> {
    fn new(args: &'a SendArgs) -> Result<Self, Failure> {
        let client = args.target.client()?;
        let (waiting, last) = Default::default();
        Ok(Self { args, client, waiting, bytes: 0, requests: 0, sent: 0, backlog: 0, last })
    }

    async fn add(&mut self, body: Box<RawValue>) -> Result<(), Failure> {
        let bytes = body.get().len();
        if self.waiting.len() == BATCH_COUNT_MAX || self.bytes + bytes > BATCH_BYTES_DEFAULT {
            self.flush().await?;
        }
        self.bytes += bytes;
        self.waiting.push(body);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        let mut batch: Vec<Send> = self.waiting.drain(..).map(|body| message(self.args, body)).collect();
        let SendArgs { queue, target, .. } = self.args;
        if batch.is_empty() {
            return Ok(());
        }
        let (key, namespace, client) = (self.next_key()?, &target.namespace, &self.client);
        // Refusals of a single message name its fields, not its place in a batch.
        let sent = if batch.len() == 1 {
            let message = batch.remove(0);
            match &key {
                Some(key) => client.send_once(namespace, queue, &message, key).await,
                None => client.send(namespace, queue, &message).await,
            }
        } else {
            let batch = SendBatch { messages: batch, delay_seconds: None };
            match &key {
                Some(key) => client.send_batch_once(namespace, queue, &batch, key).await,
                None => client.send_batch(namespace, queue, &batch).await,
            }
        };
        let sent = sent.map_err(|error| self.partly(target.failure(&error)))?;
        self.sent += sent.ids.len() as u64;
        self.backlog = sent.metadata.metrics.backlog_count;
        if target.output == Format::Json {
            let line = |id: &String| json!({"queue": queue, "id": id});
            print_lines(&sent.ids.iter().map(line).collect::<Vec<_>>())?;
        }
        self.last = sent.ids;
        Ok(())
    }

    /// The key of the next request: each has its own, the same ones in each run.
    fn next_key(&mut self) -> Result<Option<IdempotencyKey>, Failure> {
        self.requests += 1;
        let Some(key) = self.args.idempotency_key.as_ref().filter(|_| self.requests > 1) else {
            return Ok(self.args.idempotency_key.clone());
        };
        let numbered = IdempotencyKey::new(format!("{}/{}", key.as_str(), self.requests));
        let why =
            |why| self.partly(Failure::Usage(format!("--idempotency-key, with /{}: {why}", self.requests)));
        numbered.map(Some).map_err(why)
    }

    /// Says how far it got.
    fn partly(&self, failure: Failure) -> Failure {
        if self.sent == 0 {
            return failure;
        }
        Failure::Refused(format!("{failure}\nThe {} before stay sent.", messages(self.sent)))
    }

    async fn finish(mut self) -> Result<(), Failure> {
        self.flush().await?;
        if self.args.target.output == Format::Json {
            return Ok(());
        }
        let listed = self.sent <= LISTED_MAX;
        let ids: String = self.last.iter().filter(|_| listed).map(|id| format!("{id}\n")).collect();
        let queue = &self.args.queue;
        let waiting = messages(self.backlog);
        print(&format!("{ids}sent {} to {queue}; {waiting} in it now\n", messages(self.sent)))?;
        Ok(())
    }
}

fn message(args: &SendArgs, body: Box<RawValue>) -> Send {
    let attributes: Attributes = args.attributes.iter().cloned().collect::<BTreeMap<_, _>>();
    Send {
        body,
        content_type: args.text.then(|| ContentType::Text.as_str().to_owned()),
        delay_seconds: args.delay.map(Number::from),
        attributes: (!attributes.is_empty()).then_some(attributes),
    }
}
