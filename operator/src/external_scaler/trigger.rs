//! What a trigger of a ScaledObject says.

use capstan_crds::Key;
use tonic::Status;

use super::generated::ScaledObjectRef;

/// The field of a trigger's metadata that names the Consumer.
const CONSUMER: &str = "consumer";
/// The field that says how many messages one pod is to have.
const BACKLOG: &str = "backlogPerReplica";
const BACKLOG_DEFAULT: u32 = 100;
const BACKLOG_MAX: u32 = 1_000_000;
/// Most characters of a value that an answer repeats.
pub(super) const SHOWN_CHARS: usize = 100;

/// A Consumer, and how many of its messages one pod is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) consumer: Key,
    pub(super) backlog_per_replica: u32,
}

impl Trigger {
    /// Reads it. The Consumer is one of the ScaledObject's own namespace: nobody scales by what is somebody else's.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: a field is missing, or is not what it has to be.
    pub(super) fn read(scaled: &ScaledObjectRef) -> Result<Self, Status> {
        if scaled.namespace.is_empty() {
            return Err(Status::invalid_argument("the ScaledObject has no namespace"));
        }
        let field = |name: &str| {
            let value = scaled.scaler_metadata.get(name).map(|value| value.trim());
            value.filter(|value| !value.is_empty())
        };
        let Some(consumer) = field(CONSUMER) else {
            let problem = "metadata.consumer is missing from the trigger: it is the name of a Consumer of the same namespace";
            return Err(Status::invalid_argument(problem));
        };
        let backlog_per_replica = match field(BACKLOG) {
            None => BACKLOG_DEFAULT,
            Some(text) => backlog(text)?,
        };
        Ok(Self { consumer: Key::new(&scaled.namespace, consumer), backlog_per_replica })
    }
}

fn backlog(text: &str) -> Result<u32, Status> {
    let number = text.parse().ok().filter(|number| (1..=BACKLOG_MAX).contains(number));
    number.ok_or_else(|| {
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        let problem = format!(
            "metadata.backlogPerReplica of the trigger is {shown:?}: it is a whole number from 1 to {BACKLOG_MAX}"
        );
        Status::invalid_argument(problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(namespace: &str, fields: &[(&str, &str)]) -> Result<Trigger, String> {
        let scaler_metadata =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let scaled =
            ScaledObjectRef { name: "orders".into(), namespace: namespace.to_owned(), scaler_metadata };
        Trigger::read(&scaled).map_err(|status| {
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            status.message().to_owned()
        })
    }

    #[test]
    fn a_consumer_is_enough() {
        let trigger = read("shop", &[("consumer", "orders"), ("scalerAddress", "capstan:9799")]).unwrap();
        assert_eq!(trigger, Trigger { consumer: Key::new("shop", "orders"), backlog_per_replica: 100 });
        let trigger = read("shop", &[("consumer", " orders "), ("backlogPerReplica", "5")]).unwrap();
        assert_eq!(trigger, Trigger { consumer: Key::new("shop", "orders"), backlog_per_replica: 5 });
    }

    #[test]
    fn the_trigger_of_the_example_is_one() {
        let text = include_str!("../../../examples/scaling/keda.yaml");
        let documents = serde_yaml::Deserializer::from_str(text);
        let mut objects =
            documents.map(|one| <serde_json::Value as serde::Deserialize>::deserialize(one).unwrap());
        let scaled = objects.find(|object| object["kind"] == "ScaledObject").unwrap();
        let trigger = &scaled["spec"]["triggers"][0];
        assert_eq!(trigger["type"], "external-push");
        // KEDA takes nothing but text.
        let fields = trigger["metadata"].as_object().unwrap();
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let read = read("shop", &fields).unwrap();
        assert_eq!(read, Trigger { consumer: Key::new("shop", "orders"), backlog_per_replica: 100 });
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(read("", &[("consumer", "orders")]).unwrap_err().contains("namespace"));
        for fields in [&[][..], &[("consumer", " ")], &[("Consumer", "orders")]] {
            assert!(
                read("shop", fields).unwrap_err().starts_with("metadata.consumer is missing"),
                "{fields:?}"
            );
        }
        for text in ["0", "-1", "1.5", "1000001", "many", "99999999999999999999"] {
            let problem = read("shop", &[("consumer", "orders"), ("backlogPerReplica", text)]).unwrap_err();
            assert!(problem.starts_with("metadata.backlogPerReplica of the trigger is \""), "{problem}");
        }
    }
}
