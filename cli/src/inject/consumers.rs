//! The Consumers of the files, and which workload each names.

use std::sync::Arc;

use capstan_api::workload::Workload as Reference;
use capstan_crds::{Consumer, ConsumerFinding, Key, Object, Queue, Resolution, parse_all, resolve};
use capstan_inject::{Claimant, sort};

use super::args::InjectArgs;
use crate::failure::Failure;
use crate::files::Document;

/// All Consumers, and what follows from them and the Queues.
pub(super) struct Consumers {
    all: Vec<(Arc<Consumer>, bool)>,
    resolution: Resolution,
    broker: Option<String>,
}

impl Consumers {
    /// Of all files.
    pub(super) fn of(files: &[Document], with: &[Document], args: &InjectArgs) -> Result<Self, Failure> {
        let (mut queues, mut all): (Vec<Queue>, Vec<Arc<Consumer>>) = (Vec::new(), Vec::new());
        for document in files.iter().chain(with) {
            let parsed = parse_all(&document.text);
            if let Some(error) = parsed.errors.first() {
                return Err(Failure::Refused(format!("{}: {error}", document.file)));
            }
            for object in parsed.objects {
                match object {
                    Object::Queue(mut queue) => {
                        namespaced(&mut queue.metadata.namespace, args);
                        queues.push(*queue);
                    }
                    Object::Consumer(mut consumer) => {
                        namespaced(&mut consumer.metadata.namespace, args);
                        all.push(Arc::new(*consumer));
                    }
                    Object::Broker(_) | Object::Other { .. } => {}
                }
            }
        }
        let resolution = resolve(&queues, all.iter().map(AsRef::as_ref));
        let all = all.into_iter().map(|consumer| (consumer, false)).collect();
        Ok(Self { all, resolution, broker: args.broker.clone() })
    }

    /// Those that name a workload; they are found then.
    pub(super) fn of_workload(&mut self, namespace: Option<&str>, reference: &Reference) -> Vec<Claimant> {
        let mut claimants = Vec::new();
        for (consumer, is_found) in &mut self.all {
            let target = consumer.spec.target_ref.as_ref().map(|target| target.workload());
            let is_here = consumer.metadata.namespace.as_deref() == namespace;
            let key = Key::of(&consumer.metadata);
            let Some(resolved) = self.resolution.consumers.get(&key) else { continue };
            if target.as_ref() != Some(reference) || !is_here {
                continue;
            }
            *is_found = true;
            let mut resolved = resolved.clone();
            if let (ConsumerFinding::QueueNotFound, Some(broker)) = (&resolved.finding, &self.broker) {
                resolved.broker = Some(key.sibling(broker));
                resolved.finding = ConsumerFinding::Accepted;
            }
            claimants.push(Claimant { consumer: Arc::clone(consumer), resolved });
        }
        sort(&mut claimants);
        claimants
    }

    /// Whether the workload of every Consumer was among the files.
    pub(super) fn all_found(&self) -> Result<(), Failure> {
        let lost = self.all.iter().filter(|(_, is_found)| !is_found).filter_map(|(consumer, _)| {
            let target = consumer.spec.target_ref.as_ref()?.workload();
            Some(format!("{target} of Consumer {}", Key::of(&consumer.metadata).name))
        });
        let lost: Vec<String> = lost.collect();
        if lost.is_empty() || self.all.iter().any(|(_, is_found)| *is_found) {
            // Files with several Consumers are given for one workload too.
            return Ok(());
        }
        Err(Failure::Refused(format!("not in these files: {}", lost.join(", "))))
    }
}

fn namespaced(namespace: &mut Option<String>, args: &InjectArgs) {
    if namespace.is_none() {
        namespace.clone_from(&args.namespace);
    }
}
