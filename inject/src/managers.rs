//! Who applied which of the fields that injection is about, from an object's managed fields.

use capstan_crds::label;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::Value;

/// The managed fields of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Managers<'a>(&'a [ManagedFieldsEntry]);

impl<'a> Managers<'a> {
    pub(crate) fn of(meta: &'a ObjectMeta) -> Self {
        Self(meta.managed_fields.as_deref().unwrap_or_default())
    }

    /// Whether the operator applied the sidecar's container.
    pub(crate) fn own_sidecar(self) -> bool {
        self.ours().any(|entry| owns(entry, &sidecar()))
    }

    /// Whether the operator applied the annotation that starts rollouts.
    pub(crate) fn own_mark(self) -> bool {
        let mark = format!("f:{}", label::SIDECAR_MARK);
        self.ours().any(|entry| owns(entry, &["f:metadata", "f:annotations", &mark]))
    }

    /// Whether somebody else wrote the sidecar's container, whose manifest then has it: the item of the list and its image.
    /// Who only edits the image has not put the item there, and who adds a probe to it names no image.
    pub(crate) fn others_own_sidecar(self) -> bool {
        let others = self.0.iter().filter(|entry| !is_ours(entry) && !is_undo(entry) && is_of_object(entry));
        let [.., last] = sidecar();
        let image = sidecar().map(|part| if part == last { "f:image" } else { part });
        let is_whole = |entry: &ManagedFieldsEntry| owns(entry, &sidecar()) && owns(entry, &image);
        others.into_iter().any(|entry| entry.fields_v1.is_some() && is_whole(entry))
    }

    /// Whether `kubectl rollout undo` brought back what the operator had put into an earlier template: nobody wrote it.
    pub(crate) fn restored_sidecar(self) -> bool {
        self.0.iter().any(|entry| is_undo(entry) && entry.fields_v1.is_some() && owns(entry, &sidecar()))
    }

    /// The same of the annotation.
    pub(crate) fn restored_mark(self) -> bool {
        let mark = format!("f:{}", label::SIDECAR_MARK);
        let path = ["f:metadata", "f:annotations", &mark];
        self.0.iter().any(|entry| is_undo(entry) && entry.fields_v1.is_some() && owns(entry, &path))
    }

    /// Whether the operator set the number of pods, and nobody has changed it since.
    pub(crate) fn own_replicas(self) -> bool {
        self.0.iter().any(|entry| {
            let is_scaling = entry.manager.as_deref() == Some(label::SCALING_MANAGER);
            let replicas =
                entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:spec")?.get("f:replicas"));
            is_scaling && entry.subresource.as_deref() == Some("scale") && replicas.is_some()
        })
    }

    fn ours(self) -> impl Iterator<Item = &'a ManagedFieldsEntry> {
        self.0.iter().filter(|entry| is_ours(entry))
    }
}

/// The item of the list.
fn sidecar() -> [&'static str; 4] {
    ["f:spec", "f:initContainers", r#"k:{"name":"capstan"}"#, "."]
}

fn is_of_object(entry: &ManagedFieldsEntry) -> bool {
    entry.subresource.as_deref().unwrap_or_default().is_empty()
}

/// Whether it is `kubectl rollout undo` that wrote this: it names no manager, so that it is called like the program; what
/// other commands of kubectl write is called `kubectl-COMMAND`, and a server-side apply is no update.
fn is_undo(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some("kubectl")
        && entry.operation.as_deref() == Some("Update")
        && is_of_object(entry)
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(label::FIELD_MANAGER)
        && entry.operation.as_deref() == Some("Apply")
        && is_of_object(entry)
}

/// Whether an entry has a field of the pod template. One that does not say which fields may have any.
fn owns(entry: &ManagedFieldsEntry, path: &[&str]) -> bool {
    let Some(fields) = &entry.fields_v1 else { return true };
    let template = fields.0.get("f:spec").and_then(|spec| spec.get("f:template"));
    let found: Option<&Value> =
        path.iter().try_fold(template, |at, name| at.map(|at| at.get(name))).flatten();
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(manager: &str, fields: &Value) -> ObjectMeta {
        written(manager, "Apply", fields)
    }

    fn written(manager: &str, operation: &str, fields: &Value) -> ObjectMeta {
        serde_json::from_value(serde_json::json!({"managedFields": [
            {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:template": fields}}},
        ]}))
        .unwrap()
    }

    fn container() -> Value {
        serde_json::json!({"f:spec": {"f:initContainers": {"k:{\"name\":\"capstan\"}": {".": {}, "f:image": {}}}}})
    }

    #[test]
    fn fields_are_told_apart_by_who_has_them() {
        let ours = meta("capstan", &container());
        let managers = Managers::of(&ours);
        assert!(managers.own_sidecar() && !managers.own_mark() && !managers.others_own_sidecar());
        let theirs = meta("argocd", &container());
        let managers = Managers::of(&theirs);
        assert!(!managers.own_sidecar() && !managers.own_mark() && managers.others_own_sidecar());
        let mark = meta(
            "capstan",
            &serde_json::json!({"f:metadata": {"f:annotations": {"f:capstan.dev/sidecar": {}}}}),
        );
        let managers = Managers::of(&mark);
        assert!(!managers.own_sidecar() && managers.own_mark());
    }

    #[test]
    fn a_number_of_pods_is_ours_until_somebody_changes_it() {
        let owns = |manager: &str, subresource: &str, fields: Value| {
            let entry = serde_json::json!({"manager": manager, "operation": "Update", "subresource": subresource, "fieldsV1": fields});
            let meta: ObjectMeta =
                serde_json::from_value(serde_json::json!({"managedFields": [entry]})).unwrap();
            Managers::of(&meta).own_replicas()
        };
        let replicas = || serde_json::json!({"f:spec": {"f:replicas": {}}});
        assert!(owns("capstan-scaling", "scale", replicas()));
        assert!(!owns("kubectl", "scale", replicas()) && !owns("capstan-scaling", "", replicas()));
        assert!(!owns("capstan-scaling", "scale", serde_json::json!({"f:spec": {}})));
        assert!(!Managers::of(&ObjectMeta::default()).own_replicas());
    }

    #[test]
    fn what_an_undo_brings_back_was_ours() {
        let undone = written("kubectl", "Update", &container());
        let managers = Managers::of(&undone);
        assert!(managers.restored_sidecar() && !managers.others_own_sidecar() && !managers.restored_mark());
        for (manager, operation) in
            [("kubectl", "Apply"), ("kubectl-client-side-apply", "Update"), ("helm", "Update")]
        {
            let rendered = written(manager, operation, &container());
            let managers = Managers::of(&rendered);
            assert!(!managers.restored_sidecar() && managers.others_own_sidecar(), "{manager} {operation}");
        }
    }

    #[test]
    fn who_writes_a_part_of_the_sidecar_has_not_rendered_it() {
        let item = |fields: Value| serde_json::json!({"f:spec": {"f:initContainers": {"k:{\"name\":\"capstan\"}": fields}}});
        for part in [
            serde_json::json!({"f:image": {}}),
            serde_json::json!({".": {}, "f:name": {}, "f:livenessProbe": {}}),
        ] {
            assert!(!Managers::of(&meta("other", &item(part.clone()))).others_own_sidecar(), "{part}");
        }
    }
}
