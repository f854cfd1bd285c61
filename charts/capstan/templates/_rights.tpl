{{/* Generated from operator/src/rights.rs by `cargo xtask generate`; do not edit. */}}

{{- define "capstan.rights.work" -}}
# What is asked for
- apiGroups: [capstan.dev]
  resources: [brokers, queues, consumers]
  verbs: [list, watch]
# The Broker `default`, and dead-letter queues that nobody made, on first use
- apiGroups: [capstan.dev]
  resources: [brokers, queues]
  verbs: [create]
# Conditions and counts
- apiGroups: [capstan.dev]
  resources: [brokers/status, queues/status, consumers/status]
  verbs: [patch]
# A Broker's own, and targets, whose pod template gets the sidecar
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
# Targets, whose pod template gets the sidecar
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, patch]
# The addresses of a Broker
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
# Which pods of a target have the sidecar, while it rolls out
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
# Changes of conditions
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "capstan.rights.cluster" -}}
# Whether the definitions are as new as the operator
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [brokers.capstan.dev, consumers.capstan.dev, queues.capstan.dev]
  verbs: [get]
{{- end -}}

{{- define "capstan.rights.release" -}}
# One active operator at a time
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, patch]
{{- end -}}

{{- define "capstan.rights.uninstall" -}}
# Taking the sidecars back, if `uninstall.removeSidecars` is set
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [list, patch]
{{- end -}}
