//! Bringing a plan about, without a write when the workload is as planned already.

use std::time::Duration;

use capstan_api::workload::Workload as Reference;
use capstan_crds::condition::reason;
use capstan_inject::{Action, Fields, Injection as Wanted, Mark};
use k8s_openapi::api::core::v1::Container;
use tracing::{info, warn};

use super::patch::{apply, take_out};
use super::pods::{Pods, version};
use super::rollouts::Turn;
use crate::api::ApiError;
use crate::applied::{Mark as Applied, content};
use crate::condition::Verdict;
use crate::context::{Context, Object};
use crate::mode::Mode;
use crate::world::Workload;

/// When to ask again for a turn to roll.
const TURN: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Injection {
    /// Whether the template is as planned; why not.
    pub(super) template: Verdict,
    /// Whether someone else writes the same fields (it *holds* when contested).
    pub(super) contested: Verdict,
    /// What keeps pods with an older sidecar from being replaced.
    pub(super) held: Option<String>,
    /// When to look again, if not at the next event.
    pub(super) again: Option<Duration>,
}

impl Injection {
    fn done() -> Self {
        let contested = Verdict::no(reason::UNCONTESTED, "nobody else writes the sidecar's fields");
        Self { template: Verdict::yes(reason::INJECTED, ""), contested, held: None, again: None }
    }

    fn contested(message: &str) -> Self {
        let text = format!("{message}; the sidecar is left alone until whoever writes these fields stops");
        Self {
            template: Verdict::no(reason::CONFLICT, &text),
            contested: Verdict::yes(reason::CONFLICT, text),
            ..Self::done()
        }
    }

    fn refused(text: String) -> Self {
        Self { template: Verdict::no(reason::INJECTION_REFUSED, text), ..Self::done() }
    }

    /// The admission policy does not know of the sidecar yet.
    pub(super) fn untold(wait: Duration) -> Self {
        let text = "the admission policy is told of the sidecar before pods are replaced";
        Self { template: Verdict::no(reason::PENDING, text), again: Some(wait), ..Self::done() }
    }
}

/// A workload, what it is to become, and the sidecars of its pods.
pub(super) struct Task<'a> {
    pub(super) context: &'a Context,
    pub(super) reference: &'a Reference,
    pub(super) workload: &'a Workload,
    pub(super) pods: Option<&'a Pods>,
    /// For how long the admission policy may not know what it is told.
    pub(super) wait: Option<Duration>,
}

/// Does what is planned.
pub(super) async fn bring_about(task: &Task<'_>, action: &Action) -> Result<Injection, ApiError> {
    let result = match action {
        Action::Leave => return Ok(Injection::done()),
        Action::Remove => task.remove().await,
        Action::Inject(wanted) => task.inject(wanted).await,
    };
    let Task { context, reference, workload, .. } = task;
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

impl Task<'_> {
    async fn remove(&self) -> Result<Injection, ApiError> {
        take_out(&self.context.client, self.reference, self.workload).await?;
        forget(self.context, &self.workload.key.namespace, self.reference);
        info!(kind = self.reference.kind.as_str(), workload = %self.workload.key, "sidecar taken away");
        Ok(Injection::done())
    }

    async fn inject(&self, wanted: &Wanted) -> Result<Injection, ApiError> {
        let template = self.template(wanted);
        if self.context.mode.get() == Mode::Template {
            return self.by_template(wanted, template).await;
        }
        // What an earlier operator put into the template stays there, and restarts nobody, until it has to change.
        if self.workload.owns_sidecar && !self.workload.owns_mark && !self.differs(&template).await? {
            let live = self.workload.sidecar.as_ref();
            let is_old = live.is_some_and(|live| is_other_image(live, &wanted.container));
            match self.turn(wanted.is_rolling && is_old) {
                Some(Turn::Yours) => {}
                turn => return Ok(held(Injection::done(), turn)),
            }
        }
        self.by_admission(wanted).await
    }

    fn template(&self, wanted: &Wanted) -> Fields {
        Fields { sidecar: Some(wanted.container.clone()), hooks: wanted.hooks.clone(), mark: None }
    }

    async fn by_template(&self, wanted: &Wanted, mut fields: Fields) -> Result<Injection, ApiError> {
        let live = self.workload.sidecar.as_ref().filter(|_| self.workload.owns_sidecar);
        let is_old = live.is_some_and(|live| is_other_image(live, &wanted.container));
        if !is_old || self.differs(&fields).await? {
            return self.bring(fields).await;
        }
        // All that is new is the image. That is no reason to restart anyone's pods who did not ask for it.
        match self.turn(wanted.is_rolling) {
            Some(Turn::Yours) => self.bring(fields).await,
            turn => {
                if let (Some(live), Some(sidecar)) = (live, &mut fields.sidecar) {
                    (sidecar.image, sidecar.image_pull_policy) =
                        (live.image.clone(), live.image_pull_policy.clone());
                }
                Ok(held(self.bring(fields).await?, turn))
            }
        }
    }

    async fn by_admission(&self, wanted: &Wanted) -> Result<Injection, ApiError> {
        let live = self.workload.mark.as_deref().filter(|_| self.workload.owns_mark).map(Mark::parse);
        let live = live.filter(|live| live.identity == wanted.identity.mark());
        let is_new = live.is_none();
        let is_missing = self.pods.is_some_and(|pods| pods.missing > 0);
        // Pods that were made by now could miss it. Where nothing is to be made, nobody has to wait.
        if let Some(wait) = self.wait.filter(|_| is_new || is_missing) {
            return Ok(Injection::untold(wait));
        }
        let mut mark =
            live.unwrap_or_else(|| Mark { identity: wanted.identity.mark(), version: None, again: 0 });
        let pods = self.pods.filter(|_| !is_new && self.workload.is_rolled_out());
        let target = version(wanted.container.image.as_deref().unwrap_or_default());
        let is_outdated = pods.is_some_and(|pods| pods.outdated > 0);
        let mut turn = None;
        if is_outdated && mark.version.as_ref() == Some(&target) {
            // They were rolled for it, and came with another one: rolling again would change nothing.
            turn = wanted.is_rolling.then(|| Turn::Held(other_image(self.context)));
        } else if is_outdated {
            turn = self.turn(wanted.is_rolling);
            if turn == Some(Turn::Yours) {
                mark = Mark { version: Some(target), again: 0, ..mark };
            }
        }
        if pods.is_some_and(|pods| pods.missing > 0) && turn != Some(Turn::Yours) {
            let namespace = &self.workload.key.namespace;
            if let Some(pause) = self.context.reruns.pause(namespace, self.reference) {
                return Ok(Injection { again: Some(pause), ..Injection::refused(unadmitted(self.context)) });
            }
            self.context.reruns.add(namespace, self.reference);
            mark.again += 1;
            info!(workload = %self.workload.key, again = mark.again, "pods came without a sidecar: rolling again");
        }
        Ok(held(self.bring(Fields::of_mark(&mark)).await?, turn))
    }

    /// Whether a workload may be rolled for a newer sidecar; none when it did not ask for it.
    fn turn(&self, is_rolling: bool) -> Option<Turn> {
        let Self { context, reference, workload, .. } = self;
        let namespace = &workload.key.namespace;
        match is_rolling {
            false => None,
            true if !workload.replaces_pods => Some(Turn::Held(
                "the workload is paused, or replaces its pods only when somebody asks for it".to_owned(),
            )),
            true if !context.rollouts.has(namespace, reference) && !workload.is_settled() => {
                Some(Turn::Held("not all of the workload's pods are new and ready".to_owned()))
            }
            true => Some(context.rollouts.ask(namespace, reference, &context.world.read())),
        }
    }

    /// Applies fields, unless they were applied last and nobody has changed anything since.
    async fn bring(&self, fields: Fields) -> Result<Injection, ApiError> {
        let Self { context, reference, workload, .. } = self;
        let object = Object::Sidecar(workload.key.namespace.clone(), (*reference).clone());
        let content = content(&fields);
        let last = context.applied.get(&object).filter(|mark| mark.uid == workload.uid);
        if let Some(last) = last.as_ref().filter(|mark| mark.content == content) {
            let applied: i64 = last.version.parse().unwrap_or_default();
            // What the watch has not shown yet is not known to be otherwise.
            if applied >= workload.generation {
                return Ok(Injection::done());
            }
            if !workload.is_ours() {
                context.contests.add(&workload.key.namespace, reference);
            }
        }
        if context.contests.pause(&workload.key.namespace, reference).is_some() {
            return Ok(Injection::contested(
                "the sidecar was taken out, or its fields written, three times in ten minutes",
            ));
        }
        let applied = apply(&context.client, reference, workload, &fields, false).await?;
        if applied.generation != workload.generation {
            info!(kind = reference.kind.as_str(), workload = %workload.key, "sidecar injected");
        }
        let version = applied.generation.to_string();
        context.applied.set(object, Applied { content, uid: applied.uid, version });
        Ok(Injection::done())
    }

    /// Whether the template would be another one, but for the sidecar's image, were these fields applied. The API server
    /// knows best what it makes of a container: defaults, quantities, other people's webhooks.
    async fn differs(&self, fields: &Fields) -> Result<bool, ApiError> {
        let Some(live) = &self.workload.sidecar else { return Ok(true) };
        let mut old = fields.clone();
        if let Some(sidecar) = &mut old.sidecar {
            (sidecar.image, sidecar.image_pull_policy) = (live.image.clone(), live.image_pull_policy.clone());
        }
        let Self { context, reference, workload, .. } = self;
        let object = Object::Compared(workload.key.namespace.clone(), (*reference).clone());
        let version = workload.generation.to_string();
        let same = Applied { content: content(&old), uid: workload.uid.clone(), version };
        // Asked once for each state of the workload, not at each look.
        if context.applied.get(&object).as_ref() == Some(&same) {
            return Ok(false);
        }
        let would_be = apply(&context.client, reference, workload, &old, true).await?;
        let differs = would_be.sidecar.as_ref() != Some(live) || would_be.containers != workload.containers;
        if !differs {
            context.applied.set(object, same);
        }
        Ok(differs)
    }
}

fn is_other_image(live: &Container, wanted: &Container) -> bool {
    live.image != wanted.image || live.image_pull_policy != wanted.image_pull_policy
}

/// Says why pods keep their older sidecar for now.
fn held(injection: Injection, turn: Option<Turn>) -> Injection {
    let (held, again) = match turn {
        Some(Turn::Wait) => (Some("other workloads roll first".to_owned()), Some(TURN)),
        Some(Turn::Stopped(workload)) => (
            Some(format!(
                "no more workloads are rolled since {workload} does not come back: look at its pods"
            )),
            Some(TURN),
        ),
        Some(Turn::Held(why)) => (Some(why), Some(TURN)),
        Some(Turn::Yours) | None => (None, None),
    };
    Injection { held, again: injection.again.or(again), ..injection }
}

fn other_image(context: &Context) -> String {
    let policy = context.config.admission_policy.as_deref().unwrap_or_default();
    format!(
        "the admission policy {policy} gives pods another image than this operator's: upgrade the chart capstan"
    )
}

fn unadmitted(context: &Context) -> String {
    let policy = context.config.admission_policy.as_deref().unwrap_or_default();
    format!(
        "pods are created without the sidecar, which the admission policy {policy} gives them: see kubectl describe \
         mutatingadmissionpolicy {policy}, and upgrade the chart capstan"
    )
}

/// Forgets what was applied to a workload that is gone, or that has nothing of ours any more.
pub(super) fn forget(context: &Context, namespace: &str, reference: &Reference) {
    let gone = [Object::Sidecar, Object::Compared].map(|of| of(namespace.to_owned(), reference.clone()));
    context.applied.forget(|object| gone.contains(object));
}
