//! The client commands: they speak to any broker over its HTTP API.

mod body;
mod peek;
mod pull;
mod queues;
mod send;
mod settle;

use capstan_api::limits::{BATCH_COUNT_MAX, DELAY_SECONDS_MAX};
use capstan_api::{Client, ClientError, Name};
use clap::Args;
use clap::builder::TypedValueParser;

use crate::failure::Failure;
use crate::output::Format;

pub(crate) use body::raw_json;
pub(crate) use peek::{PeekArgs, peek};
pub(crate) use pull::{PullArgs, pull};
pub(crate) use queues::{QueuesArgs, queues};
pub(crate) use send::{SendArgs, send};
pub(crate) use settle::{AckArgs, RetryArgs, ack, retry};

/// Where the broker is, and how results are written.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The broker's address.
    #[arg(
        long,
        value_name = "URL",
        env = "CAPSTAN_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:9796"
    )]
    url: String,
    /// The queue's namespace.
    #[arg(short, long, env = "CAPSTAN_NAMESPACE", hide_env_values = true, default_value = "default")]
    namespace: Name,
    /// How results are written.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: Format,
}

impl Target {
    fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.url).map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &ClientError) -> Failure {
        Failure::of_client(error, &self.url)
    }
}

/// Reads `30s`, `5m`, `1h30m`, or plain seconds.
fn seconds(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let millis = millis(text)?;
    if millis.is_multiple_of(1000) { Ok(millis / 1000) } else { Err("use whole seconds".to_owned()) }
}

/// Reads `500ms`, `30s`, `5m`, or plain seconds.
fn millis(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(u64::from(seconds) * 1000);
    }
    capstan_crds::Duration::try_from(text.to_owned()).map(|d| d.millis()).map_err(|error| error.to_string())
}

/// Reads a time of at most `most` milliseconds, so that a longer one is refused by the flag's name.
fn millis_up_to(most: u64) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| match millis(text)? {
        millis if millis > most => Err(too_long(most)),
        millis => Ok(millis),
    }
}

/// Reads the delay of a message in seconds.
fn delay(text: &str) -> Result<u64, String> {
    let most = DELAY_SECONDS_MAX.into();
    match seconds(text)? {
        seconds if seconds > most => Err(too_long(most * 1000)),
        seconds => Ok(seconds),
    }
}

fn too_long(most_millis: u64) -> String {
    format!("at most {}", capstan_crds::Duration::from_seconds(most_millis / 1000))
}

/// How many messages a batch may have.
fn batch_size() -> impl TypedValueParser<Value = u16> {
    // The bound is far below 2^16.
    clap::value_parser!(u16).range(1..=i64::try_from(BATCH_COUNT_MAX).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_and_without_units() {
        assert_eq!((seconds("30"), seconds("30s"), seconds("1h30m")), (Ok(30), Ok(30), Ok(5400)));
        assert_eq!((millis("2"), millis("250ms")), (Ok(2000), Ok(250)));
        for bad in ["", "1d", "-1", "500ms"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
