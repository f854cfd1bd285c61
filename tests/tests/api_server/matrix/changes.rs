//! The changes of a manifest that users make, and the Deployments of all of them.

use crate::fixture::{APPLICATION, CONSUMER, QUEUE};

/// A change of the manifest: a text, and what takes its place.
pub(super) struct Change {
    name: &'static str,
    text: &'static str,
    new: &'static str,
}

pub(super) const CHANGES: &[Change] = &[
    Change { name: "case-nothing", text: "tier: back", new: "tier: back" },
    Change { name: "case-image", text: "example.com/app:1", new: "example.com/app:2" },
    Change {
        name: "case-variable",
        text: "env: [{name: PORT, value: '8080'}]",
        new: "env: [{name: PORT, value: '1'}, {name: B, value: b}]",
    },
    Change { name: "case-label", text: "tier: back", new: "tier: front" },
    Change { name: "case-annotation", text: "example.com/revision: '7'", new: "example.com/revision: '8'" },
    Change { name: "case-container", text: "- name: app\n", new: "- name: renamed\n" },
    Change {
        name: "case-hook",
        text: "image: example.com/app:1",
        new: "image: example.com/app:1\n        lifecycle: {preStop: {exec: {command: [sleep, '5']}}}",
    },
    Change {
        name: "case-http-hook",
        text: "image: example.com/app:1",
        new: "image: example.com/app:1\n        lifecycle: {preStop: {httpGet: {path: /stop, port: 8080}}}",
    },
    Change {
        name: "case-another-init",
        text: "- {name: first, image: 'example.com/first:1'}",
        new: "- {name: first, image: 'example.com/first:1'}\n      - {name: second, image: 'example.com/second:1'}",
    },
    Change {
        name: "case-last-init",
        text: "      initContainers:\n      - {name: first, image: 'example.com/first:1'}\n",
        new: "",
    },
    Change {
        name: "case-last-volume",
        text: "        volumeMounts: [{name: scratch, mountPath: /scratch}]\n      volumes: [{name: scratch, emptyDir: {}}]\n",
        new: "",
    },
    Change {
        name: "case-grace",
        text: "    spec:\n      initContainers",
        new: "    spec:\n      terminationGracePeriodSeconds: 60\n      initContainers",
    },
    Change { name: "case-replicas", text: "replicas: 1", new: "replicas: 2" },
];

impl Change {
    /// The Deployment of a round: who takes a sidecar out of one three times is left alone.
    pub(super) fn name(&self, round: usize) -> String {
        format!("{}-{round}", self.name)
    }

    /// Whether it makes new pods.
    pub(super) fn changes_template(&self) -> bool {
        !["case-nothing", "case-replicas"].contains(&self.name)
    }

    /// The Deployment called `name`, before or after the change. It has a pod, and replaces it rather than waiting for the
    /// next: pods are never ready here.
    fn manifest(&self, name: &str, is_changed: bool) -> String {
        let first = APPLICATION.replace("replicas: 0", "replicas: 1\n  strategy: {type: Recreate}");
        assert!(first.contains(self.text), "{}: the manifest has no {:?}", self.name, self.text);
        let text = if is_changed { first.replacen(self.text, self.new, 1) } else { first };
        text.replace("name: orders\n", &format!("name: {name}\n"))
            .replace("app: orders", &format!("app: {name}"))
    }
}

/// The Deployment without a Consumer that goes through the same.
pub(super) fn plain(name: &str) -> String {
    format!("{name}-plain")
}

/// All Deployments, each also without a Consumer.
pub(super) fn manifests(round: usize, is_changed: bool) -> String {
    let both = |change: &Change| {
        [
            change.manifest(&change.name(round), is_changed),
            change.manifest(&plain(&change.name(round)), is_changed),
        ]
        .join("---\n")
    };
    CHANGES.iter().map(both).collect::<Vec<_>>().join("---\n")
}

/// The Queues and Consumers of half of them.
pub(super) fn consumers(round: usize) -> String {
    let of = |change: &Change| {
        let text = [QUEUE, CONSUMER].concat().replacen(CONSUMER, &format!("---\n{CONSUMER}"), 1);
        text.replace("name: orders", &format!("name: {}", change.name(round)))
    };
    CHANGES.iter().map(of).collect::<Vec<_>>().join("---\n")
}
