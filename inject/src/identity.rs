//! Who a sidecar is and where its broker is: all that its container says, but for its image.

use capstan_api::workload::Workload as Reference;
use capstan_crds::consumer::{Injection, Sidecar};
use capstan_crds::names::endpoint;
use capstan_crds::resources::Resources;
use capstan_crds::{Key, label};

/// What stands between a mark and the version that the pods are to have.
const VERSION: char = '@';
/// What stands before the number of times that a rollout was begun anew.
const AGAIN: char = '+';

/// The sidecar of a workload. What it consumes it asks the broker, so that changing that restarts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub namespace: String,
    pub workload: Reference,
    pub broker_url: String,
    pub admin_port: u16,
    pub gateway_port: u16,
    pub resources: Resources,
}

impl Identity {
    /// The sidecar that `settings` ask for.
    #[must_use]
    pub fn new(namespace: &str, workload: &Reference, broker: &Key, settings: &Sidecar) -> Self {
        Self {
            namespace: namespace.to_owned(),
            workload: workload.clone(),
            broker_url: endpoint(broker),
            admin_port: settings.admin_port,
            gateway_port: settings.gateway_port,
            resources: settings.resources.clone(),
        }
    }

    /// What the admission policy is told, in the Consumer's status.
    #[must_use]
    pub fn injection(&self) -> Injection {
        Injection {
            broker_url: self.broker_url.clone(),
            admin_port: self.admin_port,
            gateway_port: self.gateway_port,
            resources: self.resources.clone(),
        }
    }

    /// A short text that changes when running pods have to be replaced, and with nothing else: neither with the image nor
    /// with what a later version of Capstan adds to the container.
    #[must_use]
    pub fn mark(&self) -> String {
        let parts = serde_json::json!([self.broker_url, self.admin_port, self.gateway_port, self.resources]);
        let hash = xxhash_rust::xxh3::xxh3_64(parts.to_string().as_bytes());
        format!("{:08x}", hash >> 32)
    }
}

/// The value of the annotation [`label::SIDECAR_MARK`]: the identity's mark, the version that pods are to have where they
/// are rolled for a new one, and how often the rollout was begun anew because pods came without a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub identity: String,
    pub version: Option<String>,
    pub again: u32,
}

impl Mark {
    /// Reads the annotation.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (rest, again) = match text.rsplit_once(AGAIN) {
            Some((rest, again)) => (rest, again.parse().unwrap_or_default()),
            None => (text, 0),
        };
        let (identity, version) = match rest.split_once(VERSION) {
            Some((identity, version)) => (identity, Some(version.to_owned())),
            None => (rest, None),
        };
        Self { identity: identity.to_owned(), version, again }
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.identity)?;
        if let Some(version) = &self.version {
            write!(f, "{VERSION}{version}")?;
        }
        if self.again > 0 {
            write!(f, "{AGAIN}{}", self.again)?;
        }
        Ok(())
    }
}

/// The annotation of the pod template.
pub(crate) const ANNOTATION: &str = label::SIDECAR_MARK;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn identity() -> Identity {
        let workload = "Deployment/web".parse().unwrap();
        Identity::new("shop", &workload, &Key::new("shop", "main"), &Sidecar::default())
    }

    /// The marks of workloads in clusters: another one restarts every consumer when the operator is upgraded.
    #[test]
    fn the_mark_stays_as_it_is_from_version_to_version() {
        assert_eq!(identity().mark(), MARK);
        let other = Identity { gateway_port: 9000, ..identity() };
        assert_ne!(other.mark(), MARK);
    }

    const MARK: &str = "a46ccb68";

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for text in ["ab12", "ab12@0.1.0", "ab12@0.1.0+3", "ab12+1", "ab12@sha256:ab"] {
            assert_eq!(Mark::parse(text).to_string(), text);
        }
        let mark = Mark::parse("ab12@0.1.0+build.5+2");
        assert_eq!((mark.version.as_deref(), mark.again), (Some("0.1.0+build.5"), 2));
    }
}
