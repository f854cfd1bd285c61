//! Records as bytes: fields in the order written here, numbers little-endian base 128 (LEB128), texts with their length.
//!
//! A change of any of these is a new format version.

use capstan_core::{
    Clock, ContentType, Delivery, Gap, GapsRecord, Key, Message, MessageId, Meta, Order, Origin, Place,
    PurgeRecord, QueueId, QueueRecord, Record, RememberedMarks, SentRecord, Seq, State, Table, Timer, Times,
};

/// Bytes end early, or hold what no record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid;

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut w = Writer(Vec::new());
    match record {
        Record::Meta(Meta { incarnation, next_queue, revision }) => {
            w.number(*incarnation);
            w.number(next_queue.0.into());
            w.bytes(revision.as_bytes());
        }
        Record::Queue(QueueRecord { label, retained, times, document }) => {
            let Times { created_at, modified_at, consumer_at } = times;
            w.bytes(label.as_bytes());
            w.0.push(u8::from(*retained));
            w.numbers(&[*created_at, *modified_at, *consumer_at]);
            w.bytes(document);
        }
        Record::State(state) => encode_state(&mut w, state),
        Record::Purge(purge) => {
            let PurgeRecord { fresh, parked, delivery, returned, dead, end, order_end } = purge;
            w.numbers(&[fresh.0, parked.0, delivery.0, returned.0, dead.0, end.0, order_end.0]);
        }
        Record::Gaps(GapsRecord { fresh, parked }) => {
            for gaps in [fresh, parked] {
                w.number(gaps.len() as u64);
                for gap in gaps {
                    w.numbers(&[gap.start.0, gap.end.0]);
                }
            }
        }
        Record::Clock(Clock { committed, outage, timer_head: (due, queue, seq) }) => {
            w.numbers(&[*committed, *outage, *due, queue.0.into(), seq.0]);
        }
        Record::Message(message) => encode_message(&mut w, message),
        Record::Delivery(delivery) => encode_delivery(&mut w, delivery),
        Record::Entry(seq) => w.number(seq.0),
        Record::Timer(Timer { table }) => w.0.push(table_byte(*table)),
        Record::Sent(SentRecord { key, content, count, sent_at }) => {
            w.0.extend_from_slice(&key.to_le_bytes());
            w.0.extend_from_slice(&content.to_le_bytes());
            w.numbers(&[(*count).into(), *sent_at]);
        }
        Record::Remembered(RememberedMarks { low, down }) => w.numbers(&[low.0, *down]),
    }
    w.0
}

/// Reads the record that belongs at `key`.
pub(super) fn decode(key: Key, bytes: &[u8]) -> Result<Record, Invalid> {
    let mut r = Reader(bytes);
    let record = match key {
        Key::Meta => {
            let (incarnation, next_queue) = (r.number()?, QueueId(r.short()?));
            Record::Meta(Meta { incarnation, next_queue, revision: r.text()? })
        }
        Key::Queue(_) => Record::Queue(QueueRecord {
            label: r.text()?,
            retained: r.flag()?,
            times: Times { created_at: r.number()?, modified_at: r.number()?, consumer_at: r.number()? },
            document: r.bytes()?.to_vec(),
        }),
        Key::State(_) => Record::State(decode_state(&mut r)?),
        Key::Purge(_) => Record::Purge(PurgeRecord {
            fresh: Seq(r.number()?),
            parked: Seq(r.number()?),
            delivery: Seq(r.number()?),
            returned: Order(r.number()?),
            dead: Order(r.number()?),
            end: Seq(r.number()?),
            order_end: Order(r.number()?),
        }),
        Key::Gaps(_) => {
            Record::Gaps(GapsRecord { fresh: decode_gaps(&mut r)?, parked: decode_gaps(&mut r)? })
        }
        Key::Clock => {
            let (committed, outage) = (r.number()?, r.number()?);
            Record::Clock(Clock {
                committed,
                outage,
                timer_head: (r.number()?, QueueId(r.short()?), Seq(r.number()?)),
            })
        }
        Key::Fresh(..) | Key::Parked(..) => Record::Message(Box::new(decode_message(&mut r)?)),
        Key::Delivery(..) => Record::Delivery(decode_delivery(&mut r)?),
        Key::Returned(..) | Key::Dead(..) => Record::Entry(Seq(r.number()?)),
        Key::Timer(..) => Record::Timer(Timer { table: r.table()? }),
        Key::Sent(..) => {
            let (key, content) = (r.wide()?, r.wide()?);
            Record::Sent(SentRecord { key, content, count: r.short()?, sent_at: r.number()? })
        }
        Key::Remembered(_) => {
            Record::Remembered(RememberedMarks { low: Seq(r.number()?), down: r.number()? })
        }
    };
    if r.0.is_empty() { Ok(record) } else { Err(Invalid) }
}

/// In order, and apart: what is read relies on it.
fn decode_gaps(r: &mut Reader<'_>) -> Result<Vec<Gap>, Invalid> {
    let mut gaps: Vec<Gap> = Vec::new();
    for _ in 0..r.number()? {
        let gap = Seq(r.number()?)..Seq(r.number()?);
        if gap.start >= gap.end || gaps.last().is_some_and(|last| last.end >= gap.start) {
            return Err(Invalid);
        }
        gaps.push(gap);
    }
    Ok(gaps)
}

fn encode_state(w: &mut Writer, state: &State) {
    let State {
        tail, cursor, fresh_low, parked_low, returned_head, dead_head, next_order, leases_made, ..
    } = state;
    let State { purged_at, ready, delayed, leased, dead, bytes, .. } = state;
    let positions = [tail.0, cursor.0, fresh_low.0, parked_low.0, returned_head.0, dead_head.0, next_order.0];
    w.numbers(&positions);
    w.numbers(&[*leases_made, *purged_at, *ready, *delayed, *leased, *dead, *bytes]);
}

fn decode_state(r: &mut Reader<'_>) -> Result<State, Invalid> {
    Ok(State {
        tail: Seq(r.number()?),
        cursor: Seq(r.number()?),
        fresh_low: Seq(r.number()?),
        parked_low: Seq(r.number()?),
        returned_head: Order(r.number()?),
        dead_head: Order(r.number()?),
        next_order: Order(r.number()?),
        leases_made: r.number()?,
        purged_at: r.number()?,
        ready: r.number()?,
        delayed: r.number()?,
        leased: r.number()?,
        dead: r.number()?,
        bytes: r.number()?,
    })
}

fn encode_message(w: &mut Writer, message: &Message) {
    let Message { id, sent_at, stored_at, due, content_type, attributes, body, origin } = message;
    w.0.reserve(body.len() + 64);
    w.0.extend_from_slice(&id.0.to_le_bytes());
    w.numbers(&[*sent_at, *stored_at, *due]);
    w.0.push(match content_type {
        ContentType::Json => 0,
        ContentType::Text => 1,
        ContentType::Bytes => 2,
        ContentType::V8 => 3,
    });
    w.number(attributes.len() as u64);
    for (name, value) in attributes {
        w.bytes(name.as_bytes());
        w.bytes(value.as_bytes());
    }
    w.bytes(body);
    w.0.push(u8::from(origin.is_some()));
    if let Some(Origin { label, attempts, reason, moved_at }) = origin {
        w.bytes(label.as_bytes());
        w.number((*attempts).into());
        w.bytes(reason.as_bytes());
        w.number(*moved_at);
    }
}

fn decode_message(r: &mut Reader<'_>) -> Result<Message, Invalid> {
    let id = MessageId(r.wide()?);
    let (sent_at, stored_at, due) = (r.number()?, r.number()?, r.number()?);
    let content_type = match r.byte()? {
        0 => ContentType::Json,
        1 => ContentType::Text,
        2 => ContentType::Bytes,
        3 => ContentType::V8,
        _ => return Err(Invalid),
    };
    let mut attributes = Vec::new();
    for _ in 0..r.number()? {
        attributes.push((r.text()?, r.text()?));
    }
    let body = r.bytes()?.to_vec();
    let origin = if r.flag()? {
        Some(Origin { label: r.text()?, attempts: r.short()?, reason: r.text()?, moved_at: r.number()? })
    } else {
        None
    };
    Ok(Message { id, sent_at, stored_at, due, content_type, attributes, body, origin })
}

fn encode_delivery(w: &mut Writer, delivery: &Delivery) {
    let Delivery { table, bytes, attempts, releases, place, reason } = delivery;
    w.0.push(table_byte(*table));
    w.numbers(&[*bytes, (*attempts).into(), (*releases).into()]);
    let (kind, numbers) = match *place {
        Place::Leased { until, nonce, batch } => (0, [until, nonce, batch]),
        Place::Returned { order } => (1, [order.0, 0, 0]),
        Place::Waiting { due } => (2, [due, 0, 0]),
        Place::Dead { order } => (3, [order.0, 0, 0]),
    };
    w.0.push(kind);
    w.numbers(&numbers);
    w.bytes(reason.as_bytes());
}

fn decode_delivery(r: &mut Reader<'_>) -> Result<Delivery, Invalid> {
    let (table, bytes, attempts, releases) = (r.table()?, r.number()?, r.short()?, r.short()?);
    let (kind, a, b, c) = (r.byte()?, r.number()?, r.number()?, r.number()?);
    let place = match kind {
        0 => Place::Leased { until: a, nonce: b, batch: c },
        1 => Place::Returned { order: Order(a) },
        2 => Place::Waiting { due: a },
        3 => Place::Dead { order: Order(a) },
        _ => return Err(Invalid),
    };
    Ok(Delivery { table, bytes, attempts, releases, place, reason: r.text()? })
}

const fn table_byte(table: Table) -> u8 {
    match table {
        Table::Fresh => 0,
        Table::Parked => 1,
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn numbers(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.number(*number);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Invalid> {
        let (byte, rest) = self.0.split_first().ok_or(Invalid)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Invalid> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Invalid)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, Invalid> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Invalid);
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Invalid)
    }

    fn short(&mut self) -> Result<u32, Invalid> {
        u32::try_from(self.number()?).map_err(|_| Invalid)
    }

    fn wide(&mut self) -> Result<u128, Invalid> {
        self.take(16)?.first_chunk().map(|bytes| u128::from_le_bytes(*bytes)).ok_or(Invalid)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Invalid> {
        let length = usize::try_from(self.number()?).map_err(|_| Invalid)?;
        self.take(length)
    }

    fn text(&mut self) -> Result<String, Invalid> {
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| Invalid)
    }

    fn flag(&mut self) -> Result<bool, Invalid> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Invalid),
        }
    }

    fn table(&mut self) -> Result<Table, Invalid> {
        match self.byte()? {
            0 => Ok(Table::Fresh),
            1 => Ok(Table::Parked),
            _ => Err(Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> impl Strategy<Value = Option<Origin>> {
        prop::option::of(
            (".{0,9}", any::<u32>(), ".{0,9}", any::<u64>())
                .prop_map(|(label, attempts, reason, moved_at)| Origin { label, attempts, reason, moved_at }),
        )
    }

    fn message() -> impl Strategy<Value = Record> {
        let types = prop::sample::select(vec![
            ContentType::Json,
            ContentType::Text,
            ContentType::Bytes,
            ContentType::V8,
        ]);
        let numbers = (any::<u128>(), any::<u64>(), any::<u64>(), any::<u64>());
        let attributes = prop::collection::vec((".{0,5}", ".{0,5}"), 0..3);
        let body = prop::collection::vec(any::<u8>(), 0..300);
        (numbers, types, attributes, body, origin()).prop_map(
            |(numbers, content_type, attributes, body, origin)| {
                let (id, sent_at, stored_at, due) = numbers;
                let id = MessageId(id);
                Record::Message(Box::new(Message {
                    id,
                    sent_at,
                    stored_at,
                    due,
                    content_type,
                    attributes,
                    body,
                    origin,
                }))
            },
        )
    }

    fn delivery() -> impl Strategy<Value = Record> {
        let tables = prop::sample::select(vec![Table::Fresh, Table::Parked]);
        (tables, any::<u64>(), any::<(u32, u32)>(), 0..4u8, any::<(u64, u64, u64)>(), ".{0,9}").prop_map(
            |(table, bytes, (attempts, releases), kind, (a, b, c), reason)| {
                let place = match kind {
                    0 => Place::Leased { until: a, nonce: b, batch: c },
                    1 => Place::Returned { order: Order(a) },
                    2 => Place::Waiting { due: a },
                    _ => Place::Dead { order: Order(a) },
                };
                Record::Delivery(Delivery { table, bytes, attempts, releases, place, reason })
            },
        )
    }

    fn small() -> impl Strategy<Value = (Key, Record)> {
        (0..9u8, any::<[u64; 14]>(), any::<u32>(), ".{0,20}", any::<bool>()).prop_map(
            |(kind, n, queue, text, flag)| {
                let id = QueueId(queue);
                match kind {
                    0 => {
                        (Key::Meta, Record::Meta(Meta { incarnation: n[0], next_queue: id, revision: text }))
                    }
                    1 => {
                        let document = text.clone().into_bytes();
                        let times = Times { created_at: n[0], modified_at: n[1], consumer_at: n[2] };
                        let record = QueueRecord { label: text, retained: flag, times, document };
                        (Key::Queue(id), Record::Queue(record))
                    }
                    2 => (Key::State(id), Record::State(decode_state(&mut Reader(&numbers(&n))).unwrap())),
                    3 => {
                        let timer_head = (n[2], id, Seq(n[3]));
                        (Key::Clock, Record::Clock(Clock { committed: n[0], outage: n[1], timer_head }))
                    }
                    4 => (Key::Purge(id), decode(Key::Purge(id), &numbers(&n[..7])).unwrap()),
                    5 => (
                        Key::Gaps(id),
                        Record::Gaps(GapsRecord { fresh: gaps(&n[..5]), parked: gaps(&n[5..]) }),
                    ),
                    6 => (
                        Key::Remembered(id),
                        Record::Remembered(RememberedMarks { low: Seq(n[0]), down: n[1] }),
                    ),
                    7 => {
                        let [key, content] = [n[0], n[1]].map(|n| u128::from(n) << 60);
                        let sent = SentRecord { key, content, count: queue, sent_at: n[2] };
                        (Key::Sent(id, Seq(n[3])), Record::Sent(sent))
                    }
                    _ => (Key::Returned(id, Order(n[0])), Record::Entry(Seq(n[1]))),
                }
            },
        )
    }

    fn numbers(numbers: &[u64]) -> Vec<u8> {
        let mut w = Writer(Vec::new());
        numbers.iter().for_each(|n| w.number(*n));
        w.0
    }

    fn gaps(numbers: &[u64]) -> Vec<Gap> {
        let apart: std::collections::BTreeSet<u64> = numbers.iter().copied().collect();
        let ends: Vec<Seq> = apart.into_iter().map(Seq).collect();
        ends.chunks_exact(2).map(|gap| gap[0]..gap[1]).collect()
    }

    #[test]
    fn gaps_are_in_order_and_apart() {
        let read = |numbers_: &[u64]| decode(Key::Gaps(QueueId(1)), &numbers(numbers_));
        let record = GapsRecord { fresh: gaps(&[1, 2, 4, 9]), parked: Vec::new() };
        assert_eq!(read(&[2, 1, 2, 4, 9, 0]), Ok(Record::Gaps(record)));
        for wrong in [&[1, 2, 2, 0], &[1, 3, 2, 0]] {
            assert_eq!(read(wrong), Err(Invalid), "{wrong:?}");
        }
        for wrong in [&[2, 4, 9, 1, 2, 0], &[2, 1, 2, 2, 9, 0]] {
            assert_eq!(read(wrong), Err(Invalid), "{wrong:?}");
        }
    }

    fn anything() -> impl Strategy<Value = (Key, Record)> {
        prop_oneof![
            message().prop_map(|record| (Key::Fresh(QueueId(1), Seq(1)), record)),
            delivery().prop_map(|record| (Key::Delivery(QueueId(1), Seq(1)), record)),
            small(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn records_are_read_as_written((key, record) in anything()) {
            prop_assert_eq!(decode(key, &encode(&record)), Ok(record));
        }

        #[test]
        fn no_cut_record_is_taken((key, record) in anything(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&record);
            prop_assert_eq!(decode(key, &bytes[..cut.index(bytes.len())]), Err(Invalid));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for key in [Key::Meta, Key::Clock, Key::Fresh(QueueId(1), Seq(1)), Key::Delivery(QueueId(1), Seq(1))] {
                let _ = decode(key, &bytes);
            }
        }
    }
}
