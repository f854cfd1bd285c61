//! The admission policy as the chart has it, made from the sidecar's container.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use capstan_inject::policy::{binding, spec};
use serde_json::Value;

/// Where the chart's templates put the image and its pull policy.
const IMAGE: &str = "CAPSTAN-SIDECAR-IMAGE";
const PULL_POLICY: &str = "CAPSTAN-SIDECAR-PULL-POLICY";

/// Where the operator works in some namespaces only, so does the policy.
const NAMESPACES: &str = r#"  {{- with .Values.watchNamespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: In
        values: {{ toJson . }}
  {{- end }}
"#;

/// Two spaces before each line, as a member of an object.
fn indented(value: &Value) -> String {
    let text = serde_yaml::to_string(value).unwrap();
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn chart() -> String {
    let head = r#"{{- /* Generated from inject/src/policy.rs by cargo xtask generate; do not edit. */}}
{{- $version := include "capstan.admissionVersion" . }}
{{- if $version }}
# Gives the pods of every workload that a Consumer names their sidecar, inside the API server. It stays when the chart is
# uninstalled, so that pods that are replaced then still consume, unless sidecars are to be removed.
"#;
    let metadata = r#"metadata:
  name: {{ include "capstan.admissionPolicy" . }}
  labels:
    {{- include "capstan.labels" . | nindent 4 }}
  {{- if not .Values.uninstall.removeSidecars }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
spec:
"#;
    let object = |kind: &str, spec: &Value| {
        format!(
            "apiVersion: admissionregistration.k8s.io/{{{{ $version }}}}\nkind: {kind}\n{metadata}{}",
            indented(spec)
        )
    };
    let text = format!(
        "{head}{}---\n{}{NAMESPACES}{{{{- end }}}}\n",
        object("MutatingAdmissionPolicy", &spec(IMAGE, PULL_POLICY)),
        object("MutatingAdmissionPolicyBinding", &binding("CAPSTAN-POLICY")),
    );
    let image = r#"{{ include "capstan.image" (dict "root" $ "image" .Values.images.sidecar) }}"#;
    text.replace(IMAGE, image)
        .replace(PULL_POLICY, "{{ .Values.images.sidecar.pullPolicy }}")
        .replace("CAPSTAN-POLICY", r#"{{ include "capstan.admissionPolicy" . }}"#)
}

#[test]
fn files_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/capstan/templates/sidecar-policy.yaml");
    let wanted = chart();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{} is not current: run cargo xtask generate", path.display());
}
