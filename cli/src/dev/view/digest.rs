//! From what happens to lines, few enough to be read: what is alike within a moment becomes one. Pure.

use std::collections::BTreeMap;

use capstan_sidecar::Event;
use capstan_sidecar::event::{Message, What};
use capstan_sidecar::verdict::Decision;

use super::facts::{Facts, QueueFacts};
use super::line::{Line, Tone};
use crate::dev::happening::Happening;
use crate::output::messages;

/// Failures that are shown one by one; more within a moment are counted.
const SINGLE_MAX: usize = 5;
/// The label of the application's lines.
const APP: &str = "app";
/// Last digits of an id: enough to follow a message.
const ID_DIGITS: usize = 4;

/// Lines of this moment.
#[derive(Default)]
pub(super) struct Digest {
    entries: Vec<Entry>,
}

struct Entry {
    line: Line,
    /// The messages in it, each with the latest of its deliveries; none for what is no message.
    messages: BTreeMap<String, u32>,
    /// How often something happened to them.
    count: u64,
}

impl Entry {
    fn take_in(&mut self, messages: &[Message]) {
        self.count += messages.len() as u64;
        for Message { id, attempts } in messages {
            let latest = self.messages.entry(id.clone()).or_default();
            *latest = (*latest).max(*attempts);
        }
    }

    fn finish(self) -> Line {
        let mut line = self.line;
        let distinct = self.messages.len() as u64;
        let again = if self.count > distinct { format!(", {} times", self.count) } else { String::new() };
        if self.count > 1 {
            line.text = format!("{}{again}", messages(distinct));
        }
        line
    }

    fn is_alike(&self, line: &Line) -> bool {
        self.line.label == line.label && self.line.verb == line.verb
    }

    fn has_any(&self, label: &str, messages: &[Message]) -> bool {
        self.line.label == label && messages.iter().any(|one| self.messages.contains_key(&one.id))
    }

    /// Whether it is about a later delivery of one of them.
    fn is_later(&self, label: &str, messages: &[Message]) -> bool {
        let later = |one: &Message| self.messages.get(&one.id).is_some_and(|latest| *latest > one.attempts);
        self.line.label == label && messages.iter().any(later)
    }
}

impl Digest {
    /// Lines that wait.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes the lines, in order.
    pub(super) fn take(&mut self) -> Vec<Line> {
        self.entries.drain(..).map(Entry::finish).collect()
    }

    /// Takes a happening in.
    pub(super) fn add(&mut self, facts: &Facts, happening: Happening) {
        match happening {
            Happening::Sidecar(event) => self.event(facts, event),
            Happening::Missed(count) => {
                self.push(Line::new("", "not shown", Tone::Quiet, format!("{count} events")));
            }
            Happening::Waiting { ports } => {
                let text = format!("until the application listens on port {ports}");
                self.push(Line::new(APP, "waiting", Tone::Quiet, text));
            }
            Happening::Line(text) => self.push(Line::new(APP, "", Tone::Quiet, text)),
            Happening::Exited { how, wait } => {
                let text = format!("{how}; starting it again in {} s", wait.as_secs());
                self.push(Line::new(APP, "ended", Tone::Bad, text));
            }
            Happening::Warning(text) => self.push(Line::new("", "warning", Tone::Retry, text)),
            Happening::Ending => {
                let text = "finishing open calls; Ctrl-C again cuts them";
                self.push(Line::new("", "ending", Tone::Quiet, text));
            }
        }
    }

    fn event(&mut self, facts: &Facts, event: Event) {
        let Event { namespace, queue, what, .. } = event;
        let label = facts.labels.label(&namespace, &queue);
        let facts = facts.queue(&namespace, &queue);
        match what {
            What::Delivered { messages } => {
                let text = messages.first().map(|one| delivery(one, &facts)).unwrap_or_default();
                self.count(Line::new(label, "delivered", Tone::Delivered, text), &messages);
            }
            What::Settled { message, decision } => self.settled(label, &facts, &message, decision),
            What::Unreachable { reason, wait } => {
                let text = format!("{reason}; nothing is delivered, next try in {} s", wait.as_secs());
                self.push(Line::new(label, "held back", Tone::Bad, text));
            }
            What::Reachable => {
                self.push(Line::new(label, "connected", Tone::Good, "the application listens"));
            }
        }
    }

    fn settled(&mut self, label: String, facts: &QueueFacts, message: &Message, decision: Decision) {
        let (id, about) = (short(&message.id), std::slice::from_ref(message));
        match decision {
            Decision::Ack => self.count(Line::new(label, "acknowledged", Tone::Good, id), about),
            Decision::Release => {
                let text = format!("{id} is back; the application never began, so this was no attempt");
                self.count(Line::new(label, "released", Tone::Quiet, text), about);
            }
            Decision::Retry { delay_seconds, reason } if message.attempts <= facts.max_retries => {
                let delay = delay_seconds.map(|s| format!(", again in {s} s")).unwrap_or_default();
                let text = format!("{}{delay}: {reason}", delivery(message, facts));
                self.single(Line::new(label, "retried", Tone::Retry, text), about);
            }
            Decision::Retry { reason, .. } => {
                let after = format!("after {} deliveries: {reason}", message.attempts);
                let line = match &facts.dead_letter_queue {
                    Some(queue) => {
                        Line::new(label, "dead-lettered", Tone::Bad, format!("{id} → {queue} {after}"))
                    }
                    None => Line::new(
                        label,
                        "dropped",
                        Tone::Bad,
                        format!("{id} {after}; there is no deadLetterQueueRef"),
                    ),
                };
                self.single(line, about);
            }
        }
    }

    fn push(&mut self, line: Line) {
        self.entries.push(Entry { line, messages: BTreeMap::new(), count: 0 });
    }

    /// One line for all of the same queue and verb, as long as no message would be in it before an earlier line of it.
    fn count(&mut self, line: Line, messages: &[Message]) {
        let alike = self.alike(&line);
        let joins = alike.last().filter(|last| {
            let follows = |entry: &Entry| entry.has_any(&line.label, messages);
            alike.len() >= SINGLE_MAX || !self.entries[**last..].iter().any(follows)
        });
        match joins {
            Some(i) => self.entries[*i].take_in(messages),
            None => self.insert(line, messages),
        }
    }

    /// Lines of their own for the first few.
    fn single(&mut self, line: Line, messages: &[Message]) {
        let alike = self.alike(&line);
        match alike.last() {
            Some(last) if alike.len() >= SINGLE_MAX => self.entries[*last].take_in(messages),
            _ => self.insert(line, messages),
        }
    }

    /// At the end, but before what is about a later delivery: a verdict and the next delivery come from different tasks.
    fn insert(&mut self, line: Line, messages: &[Message]) {
        let later = |entry: &Entry| entry.is_later(&line.label, messages);
        let at = self.entries.iter().position(later).unwrap_or(self.entries.len());
        let mut entry = Entry { line, messages: BTreeMap::new(), count: 0 };
        entry.take_in(messages);
        self.entries.insert(at, entry);
    }

    /// Entries of the same queue and verb.
    fn alike(&self, line: &Line) -> Vec<usize> {
        (0..self.entries.len()).filter(|i| self.entries[*i].is_alike(line)).collect()
    }
}

fn delivery(message: &Message, facts: &QueueFacts) -> String {
    format!("{} delivery {} of {}", short(&message.id), message.attempts, facts.max_retries + 1)
}

fn short(id: &str) -> String {
    let tail = id.char_indices().rev().nth(ID_DIGITS - 1).map_or(0, |(start, _)| start);
    format!("#{}", &id[tail..])
}

#[cfg(test)]
mod tests {
    use capstan_api::Name;
    use capstan_api::control::Declaration;

    use super::*;

    fn facts() -> Facts {
        let text = "{\"revision\": \"\", \"queues\": [{\"namespace\": \"default\", \"name\": \"q\", \"retention_ms\": 60000, \
            \"consumer\": {\"name\": \"c\", \"max_retries\": 1, \"dead_letter_queue\": \"d\", \"visibility_timeout_ms\": 1000}}]}";
        Facts::of(&serde_json::from_str::<Declaration>(text).unwrap())
    }

    fn event(what: What) -> Happening {
        let name = |text: &str| Name::new(text).unwrap();
        Happening::Sidecar(Event { namespace: name("default"), queue: name("q"), consumer: name("c"), what })
    }

    fn message(n: u32, attempts: u32) -> Message {
        Message { id: format!("{n:032x}"), attempts }
    }

    fn retry() -> Decision {
        Decision::Retry { delay_seconds: None, reason: "500".to_owned() }
    }

    fn shown(happenings: Vec<Happening>) -> Vec<String> {
        let mut digest = Digest::default();
        for happening in happenings {
            digest.add(&facts(), happening);
        }
        digest.take().iter().map(|line| format!("{} {} {}", line.label, line.verb, line.text)).collect()
    }

    #[test]
    fn a_message_is_followed_to_its_end() {
        let lines = shown(vec![
            event(What::Delivered { messages: vec![message(3, 1)] }),
            event(What::Settled { message: message(3, 1), decision: retry() }),
            Happening::Line("hello".to_owned()),
            event(What::Settled { message: message(3, 2), decision: retry() }),
            event(What::Settled { message: message(4, 1), decision: Decision::Ack }),
        ]);
        let expected = [
            "q delivered #0003 delivery 1 of 2",
            "q retried #0003 delivery 1 of 2: 500",
            "app  hello",
            "q dead-lettered #0003 → d after 2 deliveries: 500",
            "q acknowledged #0004",
        ];
        assert_eq!(lines, expected);
    }

    /// Also when the next delivery is told before the verdict about the last.
    #[test]
    fn deliveries_of_one_message_are_told_in_their_order() {
        let delivered = |attempts| event(What::Delivered { messages: vec![message(3, attempts)] });
        let settled = |attempts, decision| event(What::Settled { message: message(3, attempts), decision });
        let other = || event(What::Settled { message: message(4, 1), decision: Decision::Ack });
        let expected = [
            "q delivered #0003 delivery 1 of 2",
            "q acknowledged #0004",
            "q retried #0003 delivery 1 of 2: 500",
            "q delivered #0003 delivery 2 of 2",
            "q acknowledged #0003",
        ];
        let lines =
            shown(vec![delivered(1), other(), settled(1, retry()), delivered(2), settled(2, Decision::Ack)]);
        assert_eq!(lines, expected);
        let lines =
            shown(vec![delivered(1), other(), delivered(2), settled(1, retry()), settled(2, Decision::Ack)]);
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_message_that_goes_round_and_round_is_one_message() {
        let happenings =
            (1..=100).map(|attempts| event(What::Delivered { messages: vec![message(3, attempts)] }));
        let lines = shown(happenings.collect());
        assert_eq!(lines.len(), SINGLE_MAX, "{lines:?}");
        assert_eq!(lines[0], "q delivered #0003 delivery 1 of 2");
        assert_eq!(lines[SINGLE_MAX - 1], "q delivered 1 message, 96 times");
    }

    #[test]
    fn many_become_few() {
        let mut happenings = Vec::new();
        for n in 0..100 {
            happenings.push(event(What::Delivered { messages: vec![message(n, 1), message(n + 100, 1)] }));
            happenings.push(event(What::Settled { message: message(n, 1), decision: Decision::Ack }));
            happenings.push(event(What::Settled { message: message(n + 100, 1), decision: retry() }));
        }
        let lines = shown(happenings);
        assert_eq!(lines.len(), 7, "{lines:?}");
        assert!(lines.contains(&"q delivered 200 messages".to_owned()), "{lines:?}");
        assert!(lines.contains(&"q acknowledged 100 messages".to_owned()), "{lines:?}");
        assert!(lines.contains(&"q retried 96 messages".to_owned()), "{lines:?}");
    }
}
