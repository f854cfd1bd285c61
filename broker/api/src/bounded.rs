//! Lists and maps that are read no further than their bound: a few bytes of JSON would become many of memory.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Reads a list. Of more than `MAX` items, the first `MAX + 1` are kept: enough to be refused.
pub(crate) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

/// Reads a map of strings, or none, in the same way.
pub(crate) fn map<'de, D, const MAX: usize>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Option::<Map<MAX>>::deserialize(deserializer)?.map(|map| map.0))
}

struct List<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
            if items.len() > MAX {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
        }
        Ok(items)
    }
}

struct Map<const MAX: usize>(BTreeMap<String, String>);

impl<'de, const MAX: usize> Deserialize<'de> for Map<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor)
    }
}

struct MapVisitor<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for MapVisitor<MAX> {
    type Value = Map<MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            entries.insert(name, value);
            if entries.len() > MAX {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                break;
            }
        }
        Ok(Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::{ATTRIBUTES_MAX, BATCH_COUNT_MAX};
    use crate::message::{Send, SendBatch};
    use crate::object::from_slice;

    fn batch(messages: &str) -> Result<usize, String> {
        let text = format!(r#"{{"messages":[{messages}]}}"#);
        from_slice::<SendBatch>(text.as_bytes()).map(|batch| batch.messages.len()).map_err(|e| e.to_string())
    }

    fn attributes(entries: &str) -> Result<usize, String> {
        let text = format!(r#"{{"body":1,"attributes":{{{entries}}}}}"#);
        let read = from_slice::<Send>(text.as_bytes()).map_err(|error| error.to_string());
        read.map(|send| send.attributes.unwrap().len())
    }

    #[test]
    fn one_too_many_is_kept_and_the_rest_is_read_over() {
        let messages = |count: usize| vec![r#"{"body":1}"#; count].join(",");
        let named = |count: usize| (0..count).map(|n| format!(r#""a{n}":"b""#)).collect::<Vec<_>>().join(",");
        for (count, kept) in [(0, 0), (1, 1), (100, 100), (101, 101), (102, 101), (100_000, 101)] {
            assert_eq!(batch(&messages(count)), Ok(kept), "{count} of {BATCH_COUNT_MAX}");
        }
        for (count, kept) in [(0, 0), (16, 16), (17, 17), (100_000, 17)] {
            assert_eq!(attributes(&named(count)), Ok(kept), "{count} of {ATTRIBUTES_MAX}");
        }
        assert_eq!(attributes(&vec![r#""a":"b""#; 100].join(",")), Ok(1), "one name");
        for broken in [batch(&format!("{},{{", messages(200))), attributes(&format!("{},a", named(200)))] {
            assert!(broken.is_err(), "what is read over must be JSON");
        }
        assert!(batch(r#"{"body":1},7"#).is_err_and(|error| error.contains("an object")));
    }
}
