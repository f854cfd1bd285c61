//! What the operator may do: the one list from which the chart's roles, docs/rights.md and `capstan-operator check` are made.
//!
//! A request that is not in here is refused in a real cluster. After a change run `cargo xtask generate`.

/// Where a right holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace, or in those of `watchNamespaces`.
    Work,
    /// The same, unless `scaling.enabled` is false.
    Scaling,
    /// Outside of namespaces. The operator does without where it is not granted.
    Cluster,
    /// In the namespace of the release.
    Release,
    /// Of the Job that takes the sidecars back after `helm uninstall`, where the chart is told to; as `Work` in place.
    Uninstall,
}

/// Verbs on resources, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    pub scope: Scope,
    /// Empty for the core group.
    pub group: &'static str,
    /// Plural names, with the subresource if it is one.
    pub resources: &'static [&'static str],
    /// Only objects of these names, unless empty.
    pub names: &'static [&'static str],
    pub verbs: &'static [&'static str],
    /// What the operator does with it.
    pub why: &'static str,
}

impl Right {
    const fn new(
        scope: Scope,
        group: &'static str,
        resources: &'static [&'static str],
        verbs: &'static [&'static str],
        why: &'static str,
    ) -> Self {
        Self { scope, group, resources, names: &[], verbs, why }
    }

    const fn named(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }
}

/// The name that the chart gives the policy by which pods get their sidecars: it differs from release to release.
pub(crate) const ADMISSION_POLICY: &str = "{{ include \"capstan.admissionPolicy\" . }}";
const CAPSTAN: &str = "capstan.dev";
const FOLLOW: &[&str] = &["list", "watch"];

/// The verbs that are used, no more. Applying creates, so `create` is needed wherever an object may be missing; targets are never
/// created.
pub const RIGHTS: &[Right] = &[
    Right::new(Scope::Work, CAPSTAN, &["brokers", "queues", "consumers"], FOLLOW, "what is asked for"),
    Right::new(
        Scope::Work,
        CAPSTAN,
        &["brokers", "queues"],
        &["create"],
        "the Broker `default`, and dead-letter queues that nobody made, on first use",
    ),
    Right::new(
        Scope::Work,
        CAPSTAN,
        &["brokers/status", "queues/status", "consumers/status"],
        &["patch"],
        "conditions and counts",
    ),
    Right::new(
        Scope::Work,
        "apps",
        &["statefulsets"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "a Broker's own, which is made anew without its pod when the volume grew; and targets, whose pod template gets the sidecar",
    ),
    Right::new(
        Scope::Work,
        "apps",
        &["deployments"],
        &["list", "watch", "patch"],
        "targets, whose pod template gets the sidecar",
    ),
    Right::new(
        Scope::Work,
        "",
        &["services", "serviceaccounts"],
        &["get", "list", "watch", "create", "patch"],
        "the addresses and the account of a Broker, and with which Secrets its namespace pulls images",
    ),
    Right::new(
        Scope::Work,
        "networking.k8s.io",
        &["networkpolicies"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "a Broker's own, and whether others guard its pod",
    ),
    Right::new(
        Scope::Work,
        "",
        &["persistentvolumeclaims"],
        &["get", "patch"],
        "the volume of a Broker that is to grow",
    ),
    Right::new(
        Scope::Work,
        "",
        &["pods"],
        &["list"],
        "which pods of a target have the sidecar, which of them are idle, and why a broker does not answer",
    ),
    Right::new(
        Scope::Scaling,
        "",
        &["pods"],
        &["patch"],
        "the deletion cost of the pods that go when a Consumer with `scaling` needs fewer",
    ),
    Right::new(
        Scope::Scaling,
        "apps",
        &["deployments/scale", "statefulsets/scale"],
        &["patch"],
        "the number of pods of a target, where its Consumer has `scaling`",
    ),
    Right::new(
        Scope::Scaling,
        "autoscaling",
        &["horizontalpodautoscalers"],
        FOLLOW,
        "whether somebody else sets the number of a target's pods",
    ),
    Right::new(Scope::Scaling, "keda.sh", &["scaledobjects"], &["list"], "the same, where KEDA is installed"),
    Right::new(
        Scope::Work,
        "events.k8s.io",
        &["events"],
        &["create", "patch"],
        "changes of conditions, and of numbers of pods",
    ),
    Right::new(
        Scope::Cluster,
        "apiextensions.k8s.io",
        &["customresourcedefinitions"],
        &["get"],
        "whether the definitions are as new as the operator",
    )
    .named(&["brokers.capstan.dev", "consumers.capstan.dev", "queues.capstan.dev"]),
    Right::new(
        Scope::Cluster,
        "admissionregistration.k8s.io",
        &["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
        &["get"],
        "whether pods get their sidecars by admission",
    )
    .named(&[ADMISSION_POLICY]),
    Right::new(Scope::Cluster, "storage.k8s.io", &["storageclasses"], &["get"], "whether a volume may grow"),
    Right::new(
        Scope::Cluster,
        "",
        &["nodes"],
        &["get"],
        "whether the node of a broker that does not answer is lost",
    ),
    Right::new(
        Scope::Release,
        "coordination.k8s.io",
        &["leases"],
        &["get", "create", "patch"],
        "one active operator at a time",
    ),
    Right::new(
        Scope::Uninstall,
        "apps",
        &["deployments", "statefulsets"],
        &["list", "patch"],
        "taking the sidecars back, if `uninstall.removeSidecars` is set",
    ),
];

/// The template `_rights.tpl` of the chart: the rules of each scope.
#[must_use]
pub fn template() -> String {
    let mut text =
        "{{/* Generated from operator/src/rights.rs by `cargo xtask generate`; do not edit. */}}\n"
            .to_owned();
    for (scope, name) in SCOPES {
        text += &format!("\n{{{{- define \"capstan.rights.{name}\" -}}}}\n");
        RIGHTS.iter().filter(|right| right.scope == scope).for_each(|right| text += &rule(right));
        text += "{{- end -}}\n";
    }
    text
}

const SCOPES: [(Scope, &str); 5] = [
    (Scope::Work, "work"),
    (Scope::Scaling, "scaling"),
    (Scope::Cluster, "cluster"),
    (Scope::Release, "release"),
    (Scope::Uninstall, "uninstall"),
];

fn rule(right: &Right) -> String {
    let list = |items: &[&str]| items.join(", ");
    let group = if right.group.is_empty() { "\"\"" } else { right.group };
    let mut text = format!(
        "# {}\n- apiGroups: [{group}]\n  resources: [{}]\n",
        capitalised(right.why),
        list(right.resources)
    );
    if !right.names.is_empty() {
        text += &format!("  resourceNames: [{}]\n", list(right.names));
    }
    text + &format!("  verbs: [{}]\n", list(right.verbs))
}

/// The page docs/rights.md.
#[must_use]
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    for (scope, title) in [
        (Scope::Work, "In every namespace, or in those of `watchNamespaces`"),
        (Scope::Scaling, "There too, unless `scaling.enabled` is false"),
        (Scope::Cluster, "Outside of namespaces, unless `rbac.clusterScoped` is false"),
        (Scope::Release, "In its own namespace"),
        (Scope::Uninstall, "After an uninstall, in a Job of its own"),
    ] {
        text += &format!("\n## {title}\n\n| API group | resources | verbs | for |\n|---|---|---|---|\n");
        for right in RIGHTS.iter().filter(|right| right.scope == scope) {
            let group = if right.group.is_empty() { "(core)" } else { right.group };
            let names = if right.names.is_empty() {
                String::new()
            } else {
                format!(
                    ", only {}",
                    right.names.join(", ").replace(ADMISSION_POLICY, "the one of the release")
                )
            };
            let (resources, verbs) = (right.resources.join(", "), right.verbs.join(", "));
            text += &format!("| {group} | {resources}{names} | {verbs} | {} |\n", right.why);
        }
    }
    text
}

const HEAD: &str = "<!-- Generated from operator/src/rights.rs by `cargo xtask generate`; do not edit. -->\n\n\
# What the operator may do\n\n\
It reads no Secrets, and no pod's log or shell. It deletes nothing but a Broker's NetworkPolicy that is switched off, and a Broker's StatefulSet, without its pod, which it\n\
makes anew around the pod when the volume grew. Each line is used: a test takes every verb away in turn, and the operator says which one it misses, in\n\
its log and in the metric `capstan_operator_forbidden_total`; what it does without (outside of namespaces) its log says once. `helm test capstan` asks the API server for all of them.\n";

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn generated_files_are_up_to_date() {
        for (file, text) in
            [("charts/capstan/templates/_rights.tpl", template()), ("docs/rights.md", document())]
        {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == text, "{file} is stale: cargo xtask generate");
        }
    }

    #[test]
    fn nothing_is_asked_for_that_nobody_should_have() {
        let mut seen = BTreeSet::new();
        for right in RIGHTS {
            assert!(
                !right.why.is_empty() && !right.verbs.is_empty() && !right.resources.is_empty(),
                "{right:?}"
            );
            for (resource, verb) in
                right.resources.iter().flat_map(|r| right.verbs.iter().map(move |v| (r, v)))
            {
                assert!(!["secrets", "*", "pods/exec", "pods/log"].contains(resource), "{right:?}");
                assert!(
                    !["*", "deletecollection", "escalate", "bind", "impersonate"].contains(verb),
                    "{right:?}"
                );
                // Of what the operator makes for a Broker, and nothing that holds messages.
                let may_go = ["statefulsets", "networkpolicies"].contains(resource);
                assert!(*verb != "delete" || may_go, "{right:?}");
                let entry = (right.scope == Scope::Uninstall, right.group, *resource, *verb);
                assert!(seen.insert(entry), "twice: {entry:?}");
            }
        }
    }
}
