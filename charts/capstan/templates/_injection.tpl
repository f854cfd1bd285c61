{{/* How pods may get their sidecar. Without rights outside of namespaces the operator cannot see the policy, and there is none. */}}
{{- define "capstan.injectionMode" -}}
{{- if .Values.rbac.clusterScoped -}}
{{- .Values.injection.mode -}}
{{- else if eq .Values.injection.mode "Admission" -}}
{{- fail "injection.mode is Admission, but rbac.clusterScoped is false, so the operator could not see the admission policy: set injection.mode to Auto or Template, or rbac.clusterScoped to true" -}}
{{- else -}}
Template
{{- end -}}
{{- end }}

{{/* The version in which the cluster serves MutatingAdmissionPolicy; empty where sidecars go into pod templates. */}}
{{- define "capstan.admissionVersion" -}}
{{- if ne (include "capstan.injectionMode" .) "Template" }}
{{- if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
v1
{{- else if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy" -}}
v1beta1
{{- else if eq .Values.injection.mode "Admission" }}
{{- fail "injection.mode is Admission, but this cluster serves no MutatingAdmissionPolicy (Kubernetes 1.36 does, 1.34 and 1.35 with its feature gate): set it to Auto or Template" }}
{{- end }}
{{- end }}
{{- end }}

{{/* The name of the policy and of its binding. */}}
{{- define "capstan.admissionPolicy" -}}
{{ include "capstan.fullname" . }}-sidecar
{{- end }}
