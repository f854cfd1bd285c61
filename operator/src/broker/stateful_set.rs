//! The StatefulSet of a Broker. Pure.

use std::collections::BTreeMap;

use capstan_api::{BROKER_ADMIN_PORT, BROKER_PORT};
use capstan_crds::broker::Volumes;
use capstan_crds::{Broker, BrokerSpec, Key, label};
use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy,
    StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, HTTPGetAction, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, TopologySpreadConstraint, VolumeMount,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::build::{PROGRAM, labels, metadata, selector};
use super::claim::Template;
use super::rollout::{Hold, Marks};
use crate::applied::content;
use crate::config::Config;
use crate::names::{VOLUME, names};
use crate::pod::{USER, requirements, restricted, seccomp};

/// Where the broker keeps its store.
const DATA: &str = "/data";
/// Opening a store may take this long: the journal of a broker that was killed is read again.
const STARTUP_SECONDS: i32 = 600;
const STARTUP_PERIOD_SECONDS: i32 = 2;

/// Builds it. `claim` is what it says of its claim for ever, `hold` how its template reaches the pod.
pub(super) fn build(broker: &Broker, config: &Config, claim: &Template, hold: &Hold) -> StatefulSet {
    let key = Key::of(&broker.metadata);
    let names = names(&key.name);
    let spec = StatefulSetSpec {
        replicas: Some(broker.spec.replicas),
        service_name: Some(names.pods_service),
        selector: LabelSelector { match_labels: Some(selector(&key.name)), ..LabelSelector::default() },
        // With OrderedReady, a pod that never gets ready would also hold up the template that repairs it.
        pod_management_policy: Some("Parallel".to_owned()),
        update_strategy: Some(StatefulSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateStatefulSetStrategy {
                partition: Some(hold.partition),
                ..RollingUpdateStatefulSetStrategy::default()
            }),
        }),
        persistent_volume_claim_retention_policy: Some(retention(broker.spec.storage.volumes)),
        volume_claim_templates: Some(vec![claim_template(broker, claim)]),
        template: template(broker, config),
        ..StatefulSetSpec::default()
    };
    let mut metadata = metadata(broker, names.stateful_set);
    metadata.annotations = Some(annotations(&marks(broker, config), hold));
    StatefulSet { metadata, spec, status: None }
}

/// What tells a new version's template from a Broker's own change.
pub(super) fn marks(broker: &Broker, config: &Config) -> Marks {
    let plain = Broker { spec: BrokerSpec::default(), ..broker.clone() };
    let hash = |broker: &Broker| format!("{:016x}", content(&template(broker, config)));
    Marks { template: hash(broker), version: hash(&plain) }
}

fn annotations(marks: &Marks, hold: &Hold) -> BTreeMap<String, String> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    BTreeMap::from([
        pair(label::TEMPLATE, &marks.template),
        pair(label::VERSION_TEMPLATE, &marks.version),
        // Written also when it is empty: left out, it would stay when somebody else has written it, too.
        pair(label::UPGRADING_SINCE, hold.upgrading_since.as_deref().unwrap_or_default()),
    ])
}

fn template(broker: &Broker, config: &Config) -> PodTemplateSpec {
    let key = Key::of(&broker.metadata);
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels(&key.name)), ..ObjectMeta::default() }),
        spec: Some(pod(broker, config)),
    }
}

fn retention(volumes: Volumes) -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    let when_deleted = match volumes {
        Volumes::Retain => "Retain",
        Volumes::Delete => "Delete",
    };
    StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some(when_deleted.to_owned()),
        when_scaled: Some("Retain".to_owned()),
    }
}

fn claim_template(broker: &Broker, template: &Template) -> PersistentVolumeClaim {
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(vec![template.access_mode.clone()]),
        storage_class_name: broker.spec.storage.class_name.clone(),
        resources: Some(VolumeResourceRequirements {
            requests: Some([("storage".to_owned(), Quantity(template.size.clone()))].into()),
            ..VolumeResourceRequirements::default()
        }),
        ..PersistentVolumeClaimSpec::default()
    };
    let metadata = ObjectMeta { name: Some(VOLUME.to_owned()), ..ObjectMeta::default() };
    PersistentVolumeClaim { metadata, spec: Some(spec), status: None }
}

fn pod(broker: &Broker, config: &Config) -> PodSpec {
    let pod = &broker.spec.pod;
    let grace = pod.termination_grace_period.get().as_secs();
    PodSpec {
        containers: vec![container(broker, config)],
        service_account_name: Some(names(&Key::of(&broker.metadata).name).service_account),
        topology_spread_constraints: Some(spread()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // A large volume is not walked through at every start.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(seccomp()),
            ..PodSecurityContext::default()
        }),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::try_from(grace).unwrap_or(i64::MAX)),
        node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
        tolerations: (!pod.tolerations.is_empty()).then(|| pod.tolerations.clone()),
        priority_class_name: pod.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

/// Brokers of a namespace are on different nodes, and in different zones, as far as there is room: a lost node then takes
/// few of them away.
fn spread() -> Vec<TopologySpreadConstraint> {
    let program = [(label::NAME.to_owned(), PROGRAM.to_owned())];
    let over = |topology: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: topology.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(program.clone().into()),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    };
    vec![over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")]
}

fn container(broker: &Broker, config: &Config) -> Container {
    let mount =
        VolumeMount { name: VOLUME.to_owned(), mount_path: DATA.to_owned(), ..VolumeMount::default() };
    Container {
        name: "broker".to_owned(),
        image: Some(config.broker_image.clone()),
        image_pull_policy: Some(config.broker_pull_policy.clone()),
        env: Some(vec![
            env("CAPSTAN_LISTEN", format!("0.0.0.0:{BROKER_PORT}")),
            env("CAPSTAN_ADMIN_LISTEN", format!("0.0.0.0:{BROKER_ADMIN_PORT}")),
            env("CAPSTAN_DATA", DATA.to_owned()),
            env("CAPSTAN_RESERVE_PERCENT", broker.spec.storage.reserve_percent.to_string()),
        ]),
        ports: Some(vec![port("http", BROKER_PORT), port("admin", BROKER_ADMIN_PORT)]),
        volume_mounts: Some(vec![mount]),
        resources: Some(requirements(&broker.spec.pod.resources)),
        security_context: Some(restricted()),
        startup_probe: Some(probe(
            "/healthz",
            STARTUP_PERIOD_SECONDS,
            STARTUP_SECONDS / STARTUP_PERIOD_SECONDS,
        )),
        readiness_probe: Some(probe("/readyz", 5, 2)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        ..Container::default()
    }
}

fn env(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(BROKER_ADMIN_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::tests::broker;
    use super::*;
    use crate::config::tests::config;

    fn built(spec: &str) -> StatefulSetSpec {
        let broker = broker(spec);
        build(&broker, &config(), &Template::new(&broker.spec.storage), &Hold::default()).spec
    }

    #[test]
    fn a_broker_is_one_pod_with_one_volume_that_stays() {
        let spec = built("{}");
        assert_eq!((spec.replicas, spec.service_name.as_deref()), (Some(1), Some("capstan-main-pods")));
        let retention = spec.persistent_volume_claim_retention_policy.unwrap();
        assert_eq!(retention.when_deleted.as_deref(), Some("Retain"));
        let claim = spec.volume_claim_templates.unwrap().remove(0);
        assert_eq!(claim.metadata.name.as_deref(), Some("data"));
        let claim = claim.spec.unwrap();
        assert_eq!(claim.resources.unwrap().requests.unwrap()["storage"].0, "10Gi");
        assert_eq!(claim.storage_class_name, None);
        assert_eq!(claim.access_modes.unwrap(), ["ReadWriteOncePod"]);
        let container = &spec.template.spec.unwrap().containers[0];
        assert_eq!(container.image.as_deref(), Some(concat!("capstan/broker:", env!("CARGO_PKG_VERSION"))));
        assert_eq!(container.volume_mounts.as_ref().unwrap()[0].mount_path, "/data");
    }

    #[test]
    fn the_pod_is_as_the_broker_asks() {
        let spec = built(
            "{storage: {size: 20Gi, className: fast, volumes: Delete}, pod: {nodeSelector: {disk: ssd}, \
             tolerations: [{key: q, operator: Exists}], priorityClassName: high, terminationGracePeriod: 2m, \
             resources: {requests: {cpu: 1}, limits: {memory: 1Gi}}}}",
        );
        assert_eq!(
            spec.persistent_volume_claim_retention_policy.unwrap().when_deleted.as_deref(),
            Some("Delete")
        );
        let claim = spec.volume_claim_templates.unwrap().remove(0).spec.unwrap();
        assert_eq!(claim.storage_class_name.as_deref(), Some("fast"));
        let pod = spec.template.spec.unwrap();
        assert_eq!(pod.node_selector.unwrap()["disk"], "ssd");
        assert_eq!(pod.tolerations.unwrap()[0].key.as_deref(), Some("q"));
        assert_eq!(pod.priority_class_name.as_deref(), Some("high"));
        assert_eq!(pod.termination_grace_period_seconds, Some(120));
        let resources = pod.containers[0].resources.as_ref().unwrap();
        assert_eq!(resources.requests.as_ref().unwrap()["cpu"].0, "1");
        assert_eq!(resources.limits.as_ref().unwrap()["memory"].0, "1Gi");
    }

    #[test]
    fn the_pod_may_run_where_pod_security_is_restricted() {
        let pod = built("{}").template.spec.unwrap();
        let security = pod.security_context.unwrap();
        assert_eq!(
            (security.run_as_non_root, security.run_as_user, security.fs_group),
            (Some(true), Some(65532), Some(65532))
        );
        assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!(pod.service_account_name.as_deref(), Some("capstan-main"));
        let container = pod.containers[0].security_context.as_ref().unwrap();
        assert_eq!(container.allow_privilege_escalation, Some(false));
        assert_eq!(container.read_only_root_filesystem, Some(true));
        assert_eq!(container.capabilities.as_ref().unwrap().drop.as_ref().unwrap(), &["ALL"]);
    }

    #[test]
    fn probes_ask_the_admin_port() {
        let pod = built("{}").template.spec.unwrap();
        let container = &pod.containers[0];
        let target = |probe: &Option<Probe>| {
            let get = probe.as_ref().unwrap().http_get.clone().unwrap();
            (get.path.unwrap(), get.port)
        };
        let admin = IntOrString::Int(9795);
        assert_eq!(target(&container.startup_probe), ("/healthz".into(), admin.clone()));
        assert_eq!(target(&container.readiness_probe), ("/readyz".into(), admin.clone()));
        assert_eq!(target(&container.liveness_probe), ("/healthz".into(), admin));
    }

    #[test]
    fn a_new_version_is_told_from_a_brokers_own_change() {
        let plain = marks(&broker("{}"), &config());
        let other = Config { broker_image: "capstan/broker:next".to_owned(), ..config() };
        let (own, version) =
            (marks(&broker("{pod: {nodeSelector: {a: b}}}"), &config()), marks(&broker("{}"), &other));
        assert!(own.template != plain.template && own.version == plain.version);
        assert!(version.template != plain.template && version.version != plain.version);
        let unrelated = "{storage: {size: 20Gi, volumes: Delete}, service: {type: LoadBalancer}, networkPolicy: {enabled: false}}";
        assert_eq!(marks(&broker(unrelated), &config()), plain, "no pod is restarted for these");
    }

    #[test]
    fn what_decides_over_the_rollout_is_written_on_the_object() {
        let broker = broker("{}");
        let hold = Hold { partition: 1, upgrading_since: Some("then".into()) };
        let set = build(
            &broker,
            &config(),
            &Template { size: "1Gi".into(), access_mode: "ReadWriteOnce".into() },
            &hold,
        );
        let annotations = set.metadata.annotations.clone().unwrap();
        let marks = marks(&broker, &config());
        assert_eq!(annotations["capstan.dev/upgrading-since"], "then");
        assert_eq!(annotations["capstan.dev/template"], marks.template);
        assert_eq!(annotations["capstan.dev/version-template"], marks.version);
        let read = crate::world::BrokerSet::from(&set);
        assert_eq!(
            (read.partition, read.size.as_deref(), read.access_mode.as_deref()),
            (1, Some("1Gi"), Some("ReadWriteOnce"))
        );
    }
}
