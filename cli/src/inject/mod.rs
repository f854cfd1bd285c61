//! `capstan inject` and `capstan uninject`: the sidecar in manifests.

mod args;
mod consumers;

use capstan_api::workload::{Workload as Reference, WorkloadKind};
use capstan_inject::manifest::{ManifestError, put_in, rewrite, take_out, workload};
use capstan_inject::{Action, Images, plan};
use serde_json::Value;

pub(crate) use self::args::{InjectArgs, UninjectArgs};
use self::consumers::Consumers;
use crate::failure::Failure;
use crate::files::{Document, read};
use crate::output::print;

/// Writes the manifests with the sidecar in every workload that a Consumer names.
pub(crate) fn inject(args: &InjectArgs) -> Result<(), Failure> {
    let documents = read(&args.files)?;
    let mut consumers = Consumers::of(&documents, &read(&args.with)?, args)?;
    let mut done = 0;
    let change = |value: &mut Value| -> Result<bool, Failure> {
        let is_changed = one(args, &mut consumers, value)?;
        done += usize::from(is_changed);
        Ok(is_changed)
    };
    let text = rewrite_all(&documents, change)?;
    consumers.all_found()?;
    if done == 0 {
        return Err(Failure::Refused(
            "no Consumer in these files names a workload in them: add the Consumer's file with --with"
                .to_owned(),
        ));
    }
    Ok(print(&text)?)
}

/// Writes the manifests without it.
pub(crate) fn uninject(args: &UninjectArgs) -> Result<(), Failure> {
    let documents = read(&args.files)?;
    let change =
        |value: &mut Value| Ok(workload(value).is_ok_and(|found| found.is_some()) && take_out(value));
    Ok(print(&rewrite_all(&documents, change)?)?)
}

fn rewrite_all(
    documents: &[Document],
    mut change: impl FnMut(&mut Value) -> Result<bool, Failure>,
) -> Result<String, Failure> {
    let mut written = String::new();
    for document in documents {
        let text = rewrite(&document.text, &mut change).map_err(|error| match error {
            ManifestError::Object(failure) => failure,
            ManifestError::Yaml { .. } => Failure::Refused(format!("{}: {error}", document.file)),
        })?;
        if !written.is_empty() && !text.starts_with("---") {
            written.push_str("---\n");
        }
        written.push_str(&text);
        if !written.ends_with('\n') {
            written.push('\n');
        }
    }
    Ok(written)
}

/// Gives one object its sidecar, if a Consumer names it.
fn one(args: &InjectArgs, consumers: &mut Consumers, value: &mut Value) -> Result<bool, Failure> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let invalid = |error| Failure::Refused(format!("{kind} {name} is not valid: {error}"));
    if workload(value).map_err(invalid)?.is_none() {
        return Ok(false);
    }
    let kind_ = if kind == "Deployment" { WorkloadKind::Deployment } else { WorkloadKind::StatefulSet };
    let reference = Reference { kind: kind_, name: name.clone() };
    let namespace = value["metadata"]["namespace"].as_str().map(str::to_owned);
    let namespace = namespace.or_else(|| args.namespace.clone());
    let claimants = consumers.of_workload(namespace.as_deref(), &reference);
    if claimants.is_empty() {
        return Ok(false);
    }
    let Some(namespace) = namespace else {
        return Err(Failure::Usage(format!(
            "{reference} names no namespace: say --namespace, which the sidecar has to know"
        )));
    };
    take_out(value);
    let Some(found) = workload(value).map_err(invalid)? else { return Ok(false) };
    let images = Images { sidecar: args.sidecar_image.clone(), pull_policy: args.pull_policy.clone() };
    let plan = plan(&namespace, &reference, Some(&found), &claimants, &images);
    match plan.action {
        Action::Inject(injection) => {
            put_in(value, &injection);
            Ok(true)
        }
        Action::Leave | Action::Remove if !plan.target.holds => {
            Err(Failure::Refused(format!("{reference}: {}", plan.target.message)))
        }
        Action::Leave | Action::Remove => Err(Failure::Refused(format!(
            "{reference}: the Queue of Consumer {} is not in these files: add its file with --with, or say --broker",
            claimants.first().map(|one| one.resolved.key.name.as_str()).unwrap_or_default()
        ))),
    }
}
