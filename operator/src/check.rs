//! `capstan-operator check`: whether the operator can do its work here. `helm test` runs it, with the operator's account.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::api::{ApiError, bounded};
use crate::config::Config;
use crate::definitions::{self, Problem};
use crate::election;
use crate::rights::{ADMISSION_POLICY, RIGHTS, Right, Scope};

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// What is as it should be, or need not be.
    pub notes: Vec<String>,
    /// What keeps the operator from its work, each with what to do.
    pub problems: Vec<String>,
}

/// Looks at everything once.
pub async fn check(cluster: kube::Config, config: &Config) -> Report {
    let mut report = Report::default();
    if let Err(error) = look(cluster, config, &mut report).await {
        report.problems.push(error.to_string());
    }
    report
}

async fn look(cluster: kube::Config, config: &Config, report: &mut Report) -> Result<(), ApiError> {
    let client = Client::try_from(cluster)?;
    let version = bounded(client.apiserver_version()).await?;
    report.notes.push(format!("the API server answers: Kubernetes {}", version.git_version));
    match definitions::look(&client).await {
        Ok(()) => report.notes.push("the definitions have every field".to_owned()),
        Err(Problem::Unreadable(_)) => {
            report.notes.push("the definitions cannot be read, and were not checked".to_owned());
        }
        Err(Problem::Lacking(text)) => report.problems.push(text),
    }
    let mut asked = 0;
    for right in RIGHTS {
        for namespace in namespaces(right.scope, config) {
            asked += rights(&client, config, right, namespace.as_deref(), report).await?;
        }
    }
    report.notes.push(format!("{asked} rights were asked for"));
    if let Some(namespace) = &config.lease_namespace {
        lease(&client, namespace, report).await?;
    }
    Ok(())
}

/// Where a right is needed; nowhere if this configuration does not.
fn namespaces(scope: Scope, config: &Config) -> Vec<Option<String>> {
    match scope {
        Scope::Work => config.scopes(),
        Scope::Scaling => {
            if config.scaling {
                config.scopes()
            } else {
                Vec::new()
            }
        }
        Scope::Cluster => vec![None],
        Scope::Release => config.lease_namespace.iter().cloned().map(Some).collect(),
        // Another account's.
        Scope::Uninstall => Vec::new(),
    }
}

/// Asks for each verb on each resource; how often it asked.
async fn rights(
    client: &Client,
    config: &Config,
    right: &Right,
    namespace: Option<&str>,
    report: &mut Report,
) -> Result<usize, ApiError> {
    let mut asked = 0;
    let name = match right.names.first() {
        Some(name) if *name == ADMISSION_POLICY => match &config.admission_policy {
            Some(name) => Some(name.clone()),
            // Sidecars go into pod templates: nobody asks.
            None => return Ok(0),
        },
        name => name.map(|name| (*name).to_owned()),
    };
    for (resource, verb) in right.resources.iter().flat_map(|r| right.verbs.iter().map(move |verb| (r, verb)))
    {
        asked += 1;
        if is_allowed(client, (right, name.as_deref()), resource, verb, namespace).await? {
            continue;
        }
        let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
        let place = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
        let text = format!("the operator may not {verb} {resource}{group}{place}: {}", right.why);
        if right.scope == Scope::Cluster {
            report.notes.push(format!("{text}; it does without"));
        } else {
            report.problems.push(format!("{text}; upgrade the chart capstan, or grant it (docs/rights.md)"));
        }
    }
    Ok(asked)
}

async fn is_allowed(
    client: &Client,
    (right, name): (&Right, Option<&str>),
    resource: &str,
    verb: &str,
    namespace: Option<&str>,
) -> Result<bool, ApiError> {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    let attributes = ResourceAttributes {
        group: Some(right.group.to_owned()),
        name: name.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None };
    let review = SelfSubjectAccessReview { metadata: ObjectMeta::default(), spec, status: None };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = bounded(api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Whether an operator is active.
async fn lease(client: &Client, namespace: &str, report: &mut Report) -> Result<(), ApiError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = match bounded(api.get_opt(election::NAME)).await {
        // Said already, as a right that is missing.
        Err(ApiError::Refused(_)) => return Ok(()),
        other => other?,
    };
    match lease.and_then(|lease| lease.spec?.holder_identity) {
        Some(holder) => report.notes.push(format!("the active operator is {holder}")),
        None => report.problems.push(format!(
            "no operator is active: see kubectl --namespace {namespace} get pods, and their logs"
        )),
    }
    Ok(())
}
