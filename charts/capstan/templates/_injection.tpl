{{/* The version in which the cluster serves MutatingAdmissionPolicy; empty where sidecars go into pod templates. */}}
{{- define "capstan.admissionVersion" -}}
{{- if ne .Values.injection.mode "Template" }}
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
