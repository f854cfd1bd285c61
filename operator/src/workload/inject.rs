//! Bringing a plan about, without a write when the workload is as planned already.

use capstan_api::workload::Workload as Reference;
use capstan_crds::condition::reason;
use k8s_openapi::api::core::v1::Container;
use tracing::{info, warn};

use super::patch::apply;
use super::plan::Action;
use crate::api::ApiError;
use crate::applied::{Mark, content};
use crate::condition::Verdict;
use crate::context::{Context, Object};
use crate::world::Workload;

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Injection {
    /// Whether the template is as planned; why not.
    pub(super) template: Verdict,
    /// Whether someone else writes the same fields (it *holds* when contested).
    pub(super) contested: Verdict,
}

impl Injection {
    fn done() -> Self {
        let contested = Verdict::no(reason::UNCONTESTED, "nobody else writes the sidecar's fields");
        Self { template: Verdict::yes(reason::INJECTED, ""), contested }
    }

    fn contested(message: &str) -> Self {
        let text = format!("{message}; the sidecar is left alone until whoever writes these fields stops");
        Self {
            template: Verdict::no(reason::CONFLICT, &text),
            contested: Verdict::yes(reason::CONFLICT, text),
        }
    }

    fn refused(text: String) -> Self {
        Self { template: Verdict::no(reason::INJECTION_REFUSED, text), ..Self::done() }
    }
}

/// Does what is planned.
pub(super) async fn bring_about(
    context: &Context,
    reference: &Reference,
    workload: &Workload,
    action: &Action,
) -> Result<Injection, ApiError> {
    let result = match action {
        Action::Leave => return Ok(Injection::done()),
        Action::Remove => remove(context, reference, workload).await,
        Action::Inject(container) => inject(context, reference, workload, container).await,
    };
    match result {
        Ok(injection) => Ok(injection),
        Err(ApiError::Contested(message)) => {
            context.contests.add(&workload.key.namespace, reference);
            warn!(workload = %workload.key, message, "the sidecar's fields belong to someone else");
            Ok(Injection::contested(&message))
        }
        Err(ApiError::Refused(message)) => {
            warn!(workload = %workload.key, message, "the sidecar was refused");
            Ok(Injection::refused(message))
        }
        Err(error) => Err(error),
    }
}

async fn remove(
    context: &Context,
    reference: &Reference,
    workload: &Workload,
) -> Result<Injection, ApiError> {
    apply(&context.client, reference, workload, None, false).await?;
    forget(context, &workload.key.namespace, reference);
    info!(kind = reference.kind.as_str(), workload = %workload.key, "sidecar taken away");
    Ok(Injection::done())
}

async fn inject(
    context: &Context,
    reference: &Reference,
    workload: &Workload,
    container: &Container,
) -> Result<Injection, ApiError> {
    let object = Object::Sidecar(workload.key.namespace.clone(), reference.clone());
    let content = content(container);
    let last = context.applied.get(&object).filter(|mark| mark.uid == workload.uid);
    if let Some(last) = last.as_ref().filter(|mark| mark.content == content) {
        let applied: i64 = last.version.parse().unwrap_or_default();
        // What the watch has not shown yet is not known to be otherwise.
        if applied >= workload.generation {
            return Ok(Injection::done());
        }
        if !workload.is_ours {
            context.contests.add(&workload.key.namespace, reference);
        }
    }
    if context.contests.pause(&workload.key.namespace, reference).is_some() {
        return Ok(Injection::contested(
            "the sidecar was taken out, or its fields written, three times in ten minutes",
        ));
    }
    let applied = if differs_in_image_alone(context, reference, workload, container).await? {
        workload.clone()
    } else {
        apply(&context.client, reference, workload, Some(container), false).await?
    };
    if applied.generation != workload.generation {
        info!(kind = reference.kind.as_str(), workload = %workload.key, "sidecar injected");
    }
    context.applied.set(object, Mark { content, uid: applied.uid, version: applied.generation.to_string() });
    Ok(Injection::done())
}

/// Whether all that is new is the sidecar's image. That is no reason to restart anyone's pods: the new image comes with
/// the next change of the sidecar.
async fn differs_in_image_alone(
    context: &Context,
    reference: &Reference,
    workload: &Workload,
    container: &Container,
) -> Result<bool, ApiError> {
    let Some(live) = workload.sidecar.as_ref().filter(|_| workload.is_ours) else { return Ok(false) };
    if live.image == container.image && live.image_pull_policy == container.image_pull_policy {
        return Ok(false);
    }
    let (image, image_pull_policy) = (live.image.clone(), live.image_pull_policy.clone());
    let old = Container { image, image_pull_policy, ..container.clone() };
    // The API server knows best what it makes of a container: defaults, quantities, other people's webhooks.
    let would_be = apply(&context.client, reference, workload, Some(&old), true).await?;
    Ok(would_be.sidecar.as_ref() == Some(live))
}

/// Forgets what was applied to a workload that is gone, or that has nothing of ours any more.
pub(super) fn forget(context: &Context, namespace: &str, reference: &Reference) {
    let gone = Object::Sidecar(namespace.to_owned(), reference.clone());
    context.applied.forget(|object| *object == gone);
}
