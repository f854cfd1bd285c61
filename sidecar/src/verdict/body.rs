//! The verdict that an answer's body may carry: the shape in which the Workers runtime reports a batch.
//!
//! It is read strictly. A field that is not known is most likely a misspelt one, and ignoring that would acknowledge what
//! the application wanted to have again.

use std::collections::BTreeMap;

use capstan_api::limits::DELAY_SECONDS_MAX;
use capstan_api::number::Whole;
use serde::Deserialize;

use super::Answer;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Body {
    outcome: Option<String>,
    ack_all: Option<bool>,
    retry_batch: Option<RetryBatch>,
    explicit_acks: Option<Vec<String>>,
    retry_messages: Option<Vec<RetryMessage>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetryBatch {
    retry: bool,
    delay_seconds: Option<Whole>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetryMessage {
    msg_id: String,
    delay_seconds: Option<Whole>,
}

/// What a body says about a message or about all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Ack,
    Retry(Option<u64>),
    /// The runtime never reports both.
    Both,
}

/// Reads the body of `answer` if it is one: JSON by its `content-type`, or an object by its first character, for many
/// servers name no type, or a wrong one.
pub(super) fn read(answer: &Answer) -> Result<Option<Body>, String> {
    let text = answer.body.trim_ascii();
    let object = text.starts_with(b"{");
    if text.is_empty() || !(object || answer.json) {
        return Ok(None);
    }
    if answer.too_long {
        return Err(format!("it is longer than {} bytes", answer.body.len()));
    }
    if text == b"null" {
        return Ok(None);
    }
    if !object {
        return Err("it is JSON, but no object: answer without a body to acknowledge all".to_owned());
    }
    let body: Body = capstan_api::object::from_slice(text).map_err(|error| error.to_string())?;
    body.check_delays()?;
    Ok(Some(body))
}

impl Body {
    /// Why the handler failed, when the body says that it did.
    pub(super) fn failure(&self) -> Option<String> {
        let outcome = self.outcome.as_ref().filter(|outcome| *outcome != "ok")?;
        Some(format!("the application reported the outcome {outcome:?}"))
    }

    /// What is said about single messages. Of two retries the last one counts.
    pub(super) fn by_message(&self) -> BTreeMap<&str, Said> {
        let acks = self.explicit_acks.iter().flatten();
        let mut said: BTreeMap<&str, Said> = acks.map(|id| (id.as_str(), Said::Ack)).collect();
        for retry in self.retry_messages.iter().flatten() {
            let entry = said.entry(&retry.msg_id).or_insert(Said::Retry(None));
            *entry = match entry {
                Said::Ack | Said::Both => Said::Both,
                Said::Retry(_) => Said::Retry(retry.delay_seconds.map(|whole| whole.0)),
            };
        }
        said
    }

    /// What is said about the messages that are not named. Of both, the one that loses nothing.
    pub(super) fn batch(&self) -> Option<Said> {
        match &self.retry_batch {
            Some(batch) if batch.retry => Some(Said::Retry(batch.delay_seconds.map(|whole| whole.0))),
            _ => self.ack_all.unwrap_or_default().then_some(Said::Ack),
        }
    }

    fn check_delays(&self) -> Result<(), String> {
        let messages = self.retry_messages.iter().flatten().filter_map(|retry| retry.delay_seconds);
        let batch = self.retry_batch.iter().filter_map(|batch| batch.delay_seconds);
        match messages.chain(batch).find(|delay| delay.0 > u64::from(DELAY_SECONDS_MAX)) {
            Some(delay) => Err(format!("delaySeconds {} is not 0 to {DELAY_SECONDS_MAX}", delay.0)),
            None => Ok(()),
        }
    }
}
