//! What the claim of a Broker's volume says, and what follows from it for the volume's growth. Pure.

use capstan_crds::ByteSize;
use capstan_crds::broker::{AccessMode, Resize, Storage};
use capstan_crds::condition::reason;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::condition::Verdict;
use crate::world::BrokerSet;

/// The claim of the volume, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) created: Option<Timestamp>,
    /// What it asks for; none when that is no size.
    pub(super) size: Option<ByteSize>,
    /// What its volume has.
    pub(super) capacity: Option<ByteSize>,
    pub(super) access_mode: Option<String>,
    pub(super) class: Option<String>,
    pub(super) is_bound: bool,
    /// Whether only the file system is yet to grow.
    is_file_system_pending: bool,
    /// The driver's word that it cannot.
    infeasible: Option<String>,
}

impl From<&PersistentVolumeClaim> for Claim {
    fn from(object: &PersistentVolumeClaim) -> Self {
        let (meta, spec) = (&object.metadata, object.spec.clone().unwrap_or_default());
        let status = object.status.clone().unwrap_or_default();
        let requests = spec.resources.and_then(|resources| resources.requests);
        let conditions = status.conditions.unwrap_or_default();
        let is = |type_: &str| conditions.iter().any(|one| one.type_ == type_ && one.status == "True");
        let infeasible = status.allocated_resource_statuses.into_iter().flatten();
        let infeasible = infeasible.map(|(_, state)| state).find(|state| state.ends_with("Infeasible"));
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            size: storage(requests.as_ref()),
            capacity: storage(status.capacity.as_ref()),
            access_mode: spec.access_modes.and_then(|modes| modes.into_iter().next()),
            class: spec.storage_class_name.filter(|class| !class.is_empty()),
            is_bound: status.phase.as_deref() == Some("Bound"),
            is_file_system_pending: is("FileSystemResizePending"),
            infeasible,
        }
    }
}

fn storage(amounts: Option<&std::collections::BTreeMap<String, Quantity>>) -> Option<ByteSize> {
    ByteSize::of_quantity(&amounts?.get("storage")?.0)
}

impl Claim {
    /// Whether it asks for less than is wanted.
    pub(super) fn is_small(&self, wanted: &ByteSize) -> bool {
        self.size.as_ref().is_some_and(|size| size.bytes() < wanted.bytes())
    }

    /// How far a growth is that the claim asks for already.
    pub(super) fn growth(&self, wanted: &ByteSize) -> Growth {
        let Some(capacity) = self.capacity.as_ref().filter(|capacity| capacity.bytes() < wanted.bytes())
        else {
            return Growth::Done;
        };
        if let Some(state) = &self.infeasible {
            return Growth::Refused(format!(
                "the driver of claim {} cannot make its volume {wanted} ({state}): see kubectl describe pvc {}; it keeps its {capacity}",
                self.name, self.name
            ));
        }
        if self.is_file_system_pending { Growth::FileSystem } else { Growth::InProgress }
    }
}

/// How far the growth of a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Growth {
    /// It is as large as it is to be.
    Done,
    /// It is not there yet, and so has its size when it comes, or when it is bound.
    Unbound,
    /// The driver was asked.
    InProgress,
    /// The volume has grown, its file system not yet.
    FileSystem,
    /// It cannot, and why.
    Refused(String),
}

impl Growth {
    /// For the status.
    pub(super) fn resize(&self) -> Resize {
        match self {
            Self::Done => Resize::None,
            Self::Unbound | Self::InProgress => Resize::InProgress,
            Self::FileSystem => Resize::FileSystemPending,
            Self::Refused(_) => Resize::Refused,
        }
    }

    /// For the condition Resizing.
    pub(super) fn verdict(&self, wanted: &ByteSize) -> Verdict {
        match self {
            Self::Done => Verdict::no(reason::AS_DECLARED, "the volume is as large as it is to be"),
            Self::Unbound => Verdict::yes(
                reason::RESIZE_IN_PROGRESS,
                format!("the claim is not bound yet: it is made {wanted} when it is"),
            ),
            Self::InProgress => Verdict::yes(
                reason::RESIZE_IN_PROGRESS,
                format!("the volume's driver is asked for {wanted}; the broker serves meanwhile"),
            ),
            Self::FileSystem => Verdict::yes(
                reason::FILE_SYSTEM_RESIZE_PENDING,
                format!(
                    "the volume has {wanted}, its file system grows on its node; if that lasts, the driver grows it only \
                    while no pod has it: delete the pod once"
                ),
            ),
            Self::Refused(why) => Verdict::yes(reason::RESIZE_REFUSED, why.clone()),
        }
    }
}

/// What the StatefulSet's template of the claim says. It can never change, but the StatefulSet can be made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) size: String,
    pub(super) access_mode: String,
}

impl Template {
    /// Of a Broker that has neither StatefulSet nor claim.
    pub(super) fn new(storage: &Storage) -> Self {
        Self {
            size: storage.size.whole().as_str().to_owned(),
            access_mode: storage.access_mode.as_str().to_owned(),
        }
    }

    /// As the StatefulSet has it.
    pub(super) fn of_set(set: &BrokerSet, storage: &Storage) -> Self {
        let new = Self::new(storage);
        Self {
            size: set.size.clone().unwrap_or(new.size),
            access_mode: set.access_mode.clone().unwrap_or(new.access_mode),
        }
    }

    /// As it is to be, with what is known of the claim. `is_large`: the claim asks for all that is wanted.
    pub(super) fn wanted(
        storage: &Storage,
        set: Option<&BrokerSet>,
        claim: Option<&Claim>,
        is_large: bool,
    ) -> Self {
        let new = Self::new(storage);
        let known = set.map(|set| Self::of_set(set, storage));
        // What cannot be read is no reason to make the StatefulSet anew, which would not end.
        let is_large_too = |known: &&Self| {
            ByteSize::of_quantity(&known.size).is_none_or(|size| size.bytes() >= storage.size.bytes())
        };
        let size = match known.as_ref().filter(|known| !is_large || is_large_too(known)) {
            Some(known) => known.size.clone(),
            None => match claim.and_then(|claim| claim.size.as_ref()).filter(|_| !is_large) {
                Some(size) => size.as_str().to_owned(),
                None => new.size,
            },
        };
        Self { size, access_mode: access_mode(storage, known.as_ref(), claim) }
    }
}

/// A claim that exists keeps its mode. Only towards the mode that every driver knows it is worth it to change the
/// template, for a claim that was never bound: it can then be deleted, and comes again.
fn access_mode(storage: &Storage, known: Option<&Template>, claim: Option<&Claim>) -> String {
    let wanted = storage.access_mode;
    let is_bound = claim.is_some_and(|claim| claim.is_bound);
    if wanted == AccessMode::ReadWriteOnce && !is_bound {
        return wanted.as_str().to_owned();
    }
    let of_claim = claim.and_then(|claim| claim.access_mode.clone());
    let known = known.map(|known| known.access_mode.clone());
    known.or(of_claim).unwrap_or_else(|| wanted.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::build::tests::broker;
    use super::*;

    fn claim(mode: &str, size: &str, status: &str) -> Claim {
        let yaml = format!(
            "{{metadata: {{name: data-capstan-main-0, uid: u}}, spec: {{accessModes: [{mode}], storageClassName: fast, \
             resources: {{requests: {{storage: {size}}}}}}}, status: {status}}}"
        );
        Claim::from(&serde_yaml::from_str::<PersistentVolumeClaim>(&yaml).unwrap())
    }

    fn storage(spec: &str) -> Storage {
        broker(&format!("{{storage: {spec}}}")).spec.storage
    }

    fn set(size: &str, mode: &str) -> BrokerSet {
        BrokerSet { size: Some(size.into()), access_mode: Some(mode.into()), ..BrokerSet::default() }
    }

    const BOUND: &str = "{phase: Bound, capacity: {storage: 10Gi}}";

    fn template(size: &str, access_mode: &str) -> Template {
        Template { size: size.into(), access_mode: access_mode.into() }
    }

    #[test]
    fn growth_is_told_by_what_the_claim_says() {
        let wanted = storage("{size: 20Gi}").size;
        let small = claim("ReadWriteOncePod", "10Gi", BOUND);
        assert!(small.is_small(&wanted) && small.is_bound);
        assert_eq!(small.class.as_deref(), Some("fast"));
        let growth = |status: &str| claim("ReadWriteOncePod", "20Gi", status).growth(&wanted);
        assert_eq!(growth("{phase: Bound, capacity: {storage: 20Gi}}"), Growth::Done);
        assert_eq!(growth("{phase: Pending}"), Growth::Done, "it comes with its size");
        assert_eq!(growth(BOUND), Growth::InProgress);
        let pending = "{phase: Bound, capacity: {storage: 10Gi}, conditions: [{type: FileSystemResizePending, status: 'True'}]}";
        assert_eq!(growth(pending), Growth::FileSystem);
        let infeasible = "{phase: Bound, capacity: {storage: 10Gi}, allocatedResourceStatuses: {storage: ControllerResizeInfeasible}}";
        assert!(
            matches!(growth(infeasible), Growth::Refused(why) if why.contains("ControllerResizeInfeasible"))
        );
        // Larger than asked for: of an earlier Broker.
        let large = claim("ReadWriteOncePod", "30Gi", "{phase: Bound, capacity: {storage: 30Gi}}");
        assert!(!large.is_small(&wanted));
        assert_eq!(large.growth(&wanted), Growth::Done);
    }

    #[test]
    fn each_growth_has_its_words() {
        let wanted = storage("{size: 20Gi}").size;
        for (growth, holds, reason, resize) in [
            (Growth::Done, false, "AsDeclared", Resize::None),
            (Growth::Unbound, true, "ResizeInProgress", Resize::InProgress),
            (Growth::InProgress, true, "ResizeInProgress", Resize::InProgress),
            (Growth::FileSystem, true, "FileSystemResizePending", Resize::FileSystemPending),
            (Growth::Refused("why".into()), true, "ResizeRefused", Resize::Refused),
        ] {
            let verdict = growth.verdict(&wanted);
            assert_eq!((verdict.holds, verdict.reason, growth.resize()), (holds, reason, resize));
        }
    }

    #[test]
    fn a_template_follows_a_claim_that_grew_and_no_other() {
        let wanted = storage("{size: 20Gi}");
        let old = set("10Gi", "ReadWriteOncePod");
        let small = claim("ReadWriteOncePod", "10Gi", BOUND);
        let of = |set, claim, is_large| Template::wanted(&wanted, set, claim, is_large);
        assert_eq!(of(None, None, true), template("20Gi", "ReadWriteOncePod"));
        assert_eq!(of(Some(&old), Some(&small), false), template("10Gi", "ReadWriteOncePod"), "refused");
        assert_eq!(of(Some(&old), Some(&small), true), template("20Gi", "ReadWriteOncePod"));
        assert_eq!(
            of(None, Some(&small), false),
            template("10Gi", "ReadWriteOncePod"),
            "adopted, and refused"
        );
        let same = set("20480Mi", "ReadWriteOncePod");
        assert_eq!(of(Some(&same), None, true), template("20480Mi", "ReadWriteOncePod"), "as it was written");
        for odd in ["21474836480000m", "20Gibi"].map(|odd| set(odd, "ReadWriteOncePod")) {
            let wanted = Template::wanted(&wanted, Some(&odd), None, true);
            assert_eq!(Some(wanted.size), odd.size, "as Kubernetes writes it");
        }
        let large = set("30Gi", "ReadWriteOncePod");
        assert_eq!(of(Some(&large), None, true), template("30Gi", "ReadWriteOncePod"), "never smaller");
    }

    #[test]
    fn a_size_that_is_no_whole_number_of_bytes_is_what_kubernetes_makes_of_it() {
        let wanted = storage("{size: 2.1Gi}");
        assert_eq!(Template::new(&wanted).size, "2254857831");
        // As an operator before this one had it written.
        let set = set("2254857830400m", "ReadWriteOncePod");
        let claim = claim(
            "ReadWriteOncePod",
            "2254857830400m",
            "{phase: Bound, capacity: {storage: 2254857830400m}}",
        );
        assert!(!claim.is_small(&wanted.size));
        assert_eq!(claim.growth(&wanted.size), Growth::Done);
        assert_eq!(
            Template::wanted(&wanted, Some(&set), Some(&claim), true),
            Template::of_set(&set, &wanted)
        );
    }

    #[test]
    fn a_claim_that_exists_keeps_its_access_mode() {
        let (default, once) = (storage("{}"), storage("{accessMode: ReadWriteOnce}"));
        let mode = |storage: &Storage, set: Option<&BrokerSet>, claim: Option<&Claim>| {
            Template::wanted(storage, set, claim, true).access_mode
        };
        let (old_set, old) = (set("10Gi", "ReadWriteOnce"), claim("ReadWriteOnce", "10Gi", BOUND));
        let pending = claim("ReadWriteOncePod", "10Gi", "{phase: Pending}");
        let bound = claim("ReadWriteOncePod", "10Gi", BOUND);
        let new_set = set("10Gi", "ReadWriteOncePod");
        assert_eq!(mode(&default, None, None), "ReadWriteOncePod");
        assert_eq!(mode(&once, None, None), "ReadWriteOnce");
        assert_eq!(mode(&default, Some(&old_set), Some(&old)), "ReadWriteOnce", "of the version before");
        assert_eq!(mode(&default, Some(&old_set), None), "ReadWriteOnce");
        assert_eq!(mode(&default, None, Some(&old)), "ReadWriteOnce", "adopted");
        assert_eq!(mode(&once, Some(&new_set), Some(&bound)), "ReadWriteOncePod");
        assert_eq!(
            mode(&once, Some(&new_set), Some(&pending)),
            "ReadWriteOnce",
            "a driver that knows no other"
        );
    }
}
