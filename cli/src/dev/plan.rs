//! From YAML to what the broker is told: checked by the rules of the API, resolved as the operator does. Pure.

use std::collections::{BTreeMap, BTreeSet};

use capstan_api::Name;
use capstan_api::control::{Declaration, QueuePolicy};
use capstan_api::workload::Workload;
use capstan_crds::{
    Consumer, ConsumerFinding, Key, Object, Queue, QueueFinding, Resolution, parse_all, resolve,
};

use crate::failure::Failure;
use crate::files::Document;

/// Problems that are said one by one.
const PROBLEMS_MAX: usize = 100;
/// Names that are listed where one of them was meant.
const NAMES_MAX: usize = 20;

/// What runs.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) declaration: Declaration,
    /// What of the files does not run here.
    pub(super) ignored: Vec<String>,
    /// Dead-letter queues that no file has.
    pub(super) implicit: BTreeSet<String>,
    resolution: Resolution,
}

/// A workload and where its application listens.
#[derive(Debug, Clone)]
pub(super) struct PushTarget {
    pub(super) namespace: Name,
    pub(super) workload: Workload,
    pub(super) ports: BTreeSet<u16>,
}

/// Makes it, or says everything that is wrong, by file, object and field.
pub(super) fn make(documents: &[Document]) -> Result<Plan, Failure> {
    let objects = Objects::read(documents)?;
    let resolution = resolve(&objects.queues, &objects.consumers);
    let problems = objects.unfit(&resolution);
    if !problems.is_empty() {
        return Err(refused(&problems));
    }
    if resolution.queues.is_empty() {
        return Err(refused(&[
            "there is no Queue in these files; write one (apiVersion: capstan.dev/v1alpha1, kind: Queue)"
                .to_owned(),
        ]));
    }
    let missing =
        |queue: &&capstan_crds::ResolvedQueue| matches!(queue.finding, QueueFinding::Missing { .. });
    let implicit = resolution.queues.values().filter(missing).map(|queue| queue.key.to_string()).collect();
    Ok(Plan { declaration: resolution.declaration_of_all(), ignored: objects.ignored, implicit, resolution })
}

impl Plan {
    /// The same with every application on `port`.
    pub(super) fn with_port(mut self, port: Option<u16>) -> Self {
        let Some(port) = port else { return self };
        let policies = self.resolution.queues.values_mut().filter_map(|queue| queue.policy.as_mut());
        for push in policies.filter_map(|policy| policy.consumer.as_mut()?.push.as_mut()) {
            push.endpoint.port = port;
        }
        self.declaration = self.resolution.declaration_of_all();
        self
    }

    /// Who gets messages by push.
    pub(super) fn workloads(&self) -> Vec<PushTarget> {
        let mut ports: BTreeMap<(Name, Workload), BTreeSet<u16>> = BTreeMap::new();
        for policy in &self.declaration.queues {
            if let Some(push) = policy.consumer.as_ref().and_then(|consumer| consumer.push.as_ref()) {
                let key = (policy.namespace.clone(), push.workload.clone());
                ports.entry(key).or_default().insert(push.endpoint.port);
            }
        }
        ports
            .into_iter()
            .map(|((namespace, workload), ports)| PushTarget { namespace, workload, ports })
            .collect()
    }

    /// All ports on which applications are expected.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        self.workloads().into_iter().flat_map(|target| target.ports).collect()
    }

    /// The namespace in which applications send: `default` if it has a queue, or else the first that has one.
    pub(super) fn account(&self) -> Option<Name> {
        let namespaces = || self.declaration.queues.iter().map(|queue| &queue.namespace);
        namespaces().find(|namespace| namespace.as_str() == "default").or(namespaces().min()).cloned()
    }

    /// The queue of a name: the one in the namespace `default`, or the only one.
    pub(super) fn queue(&self, name: &str) -> Option<&QueuePolicy> {
        let mut named: Vec<&QueuePolicy> =
            self.declaration.queues.iter().filter(|queue| queue.name.as_str() == name).collect();
        match named.iter().position(|queue| queue.namespace.as_str() == "default") {
            Some(i) => Some(named[i]),
            None if named.len() == 1 => named.pop(),
            None => None,
        }
    }
}

/// The objects of all files.
#[derive(Default)]
struct Objects {
    queues: Vec<Queue>,
    consumers: Vec<Consumer>,
    ignored: Vec<String>,
    /// Which file has an object, by kind and key.
    files: BTreeMap<(&'static str, Key), String>,
}

impl Objects {
    fn read(documents: &[Document]) -> Result<Self, Failure> {
        let mut all = Self::default();
        let mut problems = Vec::new();
        for Document { file, text } in documents {
            let parsed = parse_all(text);
            problems.extend(parsed.errors.iter().map(|error| format!("{file}: {error}")));
            problems.extend(parsed.objects.into_iter().filter_map(|object| all.add(file, object)));
        }
        if problems.is_empty() { Ok(all) } else { Err(refused(&problems)) }
    }

    /// Takes an object; says so when there is one of its name already.
    fn add(&mut self, file: &str, object: Object) -> Option<String> {
        let (kind, key) = match &object {
            Object::Queue(queue) => ("Queue", Key::of(&queue.metadata)),
            Object::Consumer(consumer) => ("Consumer", Key::of(&consumer.metadata)),
            Object::Broker(broker) => ("Broker", Key::of(&broker.metadata)),
            Object::Other { kind, name, .. } => {
                self.ignored.push(format!("{kind} {name}"));
                return None;
            }
        };
        match object {
            Object::Queue(queue) => self.queues.push(*queue),
            Object::Consumer(consumer) => {
                if consumer.spec.scaling.is_some() {
                    self.ignored.push(format!("scaling of Consumer {}", key.name));
                }
                self.consumers.push(*consumer);
            }
            Object::Broker(_) | Object::Other { .. } => self.ignored.push(format!("{kind} {}", key.name)),
        }
        let first = self.files.insert((kind, key.clone()), file.to_owned())?;
        Some(format!("{file}: {kind} {key} is in {first} too; an object can be there once"))
    }

    /// Consumers that could not work: on a cluster they would wait with a condition.
    fn unfit(&self, resolution: &Resolution) -> Vec<String> {
        let problem = |consumer: &capstan_crds::ResolvedConsumer| {
            let why = match &consumer.finding {
                ConsumerFinding::Accepted => return None,
                ConsumerFinding::InvalidName => "metadata.name or metadata.namespace is not valid".to_owned(),
                ConsumerFinding::QueueNotFound => format!(
                    "spec.queueRef.name: there is no Queue {}; {}",
                    consumer.queue,
                    there_are(resolution.queues.keys())
                ),
                ConsumerFinding::QueueAlreadyConsumed { by } => format!(
                    "spec.queueRef.name: Queue {} has the Consumer {by} already, and can have one",
                    consumer.queue
                ),
                ConsumerFinding::DeadLetterQueueElsewhere { broker, queue_broker } => format!(
                    "spec.deadLetterQueueRef.name: that queue is stored by Broker {broker}, and Queue {} by Broker \
                     {queue_broker}; give both the same brokerRef",
                    consumer.queue
                ),
            };
            let file = self.files.get(&("Consumer", consumer.key.clone())).map_or("?", String::as_str);
            Some(format!("{file}: Consumer {} cannot work:\n  {why}", consumer.key.name))
        };
        resolution.consumers.values().filter_map(problem).collect()
    }
}

fn there_are<'a>(keys: impl Iterator<Item = &'a Key>) -> String {
    let names: Vec<String> = keys.map(ToString::to_string).collect();
    if names.is_empty() {
        "there is none in these files".to_owned()
    } else {
        format!("there are {}", listed(&names))
    }
}

/// The first names, and how many more there are.
pub(super) fn listed(names: &[String]) -> String {
    let (first, more) = names.split_at(names.len().min(NAMES_MAX));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("{}{more}", first.join(", "))
}

fn refused(problems: &[String]) -> Failure {
    let (first, more) = problems.split_at(problems.len().min(PROBLEMS_MAX));
    let more = if more.is_empty() { String::new() } else { format!("\nand {} problems more", more.len()) };
    Failure::Refused(format!("{}{more}", first.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        let document = Document { file: "a.yaml".to_owned(), text: text.to_owned() };
        make(&[document]).map_err(|error| error.to_string())
    }

    fn queue(name: &str) -> String {
        format!("---\n{{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {{name: {name}}}}}\n")
    }

    fn consumer(name: &str, spec: &str) -> String {
        format!(
            "---\n{{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
        )
    }

    #[test]
    fn a_port_of_this_machine_replaces_the_cluster_s() {
        let text = queue("a") + &consumer("c", "queueRef: {name: a}, targetRef: {kind: Deployment, name: x}");
        let before = plan(&text).unwrap();
        assert_eq!(before.ports(), BTreeSet::from([8080]));
        let revision = before.declaration.revision.clone();
        let after = before.with_port(Some(3000));
        assert_eq!(after.ports(), BTreeSet::from([3000]));
        assert_ne!(after.declaration.revision, revision);
    }

    #[test]
    fn applications_send_to_the_namespace_default_or_to_the_first() {
        let queue =
            |namespace: &str| queue("a").replace("name: a", &format!("name: a, namespace: {namespace}"));
        let account = |namespaces: &[&str]| {
            let text: String = namespaces.iter().map(|namespace| queue(namespace)).collect();
            plan(&text).unwrap().account().unwrap().to_string()
        };
        assert_eq!(account(&["b", "default", "a"]), "default");
        assert_eq!(account(&["c", "b"]), "b");
    }

    #[test]
    fn the_problems_of_all_files_are_said_up_to_a_bound() {
        let document = |file: &str, text: String| Document { file: file.to_owned(), text };
        let wrong =
            "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: q, name: r}}".to_owned();
        let good = document("c.yaml", queue("a"));
        let files = [document("a.yaml", wrong.clone()), document("b.yaml", "kind: A".to_owned()), good];
        let message = make(&files).unwrap_err().to_string();
        assert!(message.contains("a.yaml: Queue r") && message.contains("b.yaml: document 1"), "{message}");
        let many = vec![wrong; PROBLEMS_MAX + 7].join("\n---\n");
        let message = plan(&many).unwrap_err();
        assert!(message.ends_with("and 7 problems more"), "{message}");
    }

    #[test]
    fn what_cannot_work_is_said_with_file_object_and_field() {
        for (text, parts) in [
            (
                consumer("c", "queueRef: {name: b}") + &queue("a"),
                ["a.yaml: Consumer c", "spec.queueRef.name", "default/a"],
            ),
            (
                queue("a") + &consumer("c", "queueRef: {name: a}") + &consumer("d", "queueRef: {name: a}"),
                ["a.yaml: Consumer d", "spec.queueRef.name", "Consumer c"],
            ),
            (queue("a") + &queue("a"), ["a.yaml: Queue default/a", "too", "once"]),
            (
                "{apiVersion: v1, kind: Secret, metadata: {name: s}}".to_owned(),
                ["no Queue", "capstan.dev/v1alpha1", "kind"],
            ),
        ] {
            let message = plan(&text).unwrap_err();
            for part in parts {
                assert!(message.contains(part), "{part:?} is not in: {message}");
            }
        }
    }
}
