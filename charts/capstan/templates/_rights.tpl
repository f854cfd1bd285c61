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
# A Broker's own, which is made anew without its pod when the volume grew; and targets, whose pod template gets the sidecar
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# Targets, whose pod template gets the sidecar
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, patch]
# The addresses and the account of a Broker, and with which Secrets its namespace pulls images
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch]
# A Broker's own, and whether others guard its pod
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# The volume of a Broker that is to grow
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, patch]
# Which pods of a target have the sidecar, which of them are idle, and why a broker does not answer
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
# Changes of conditions, and of numbers of pods
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "capstan.rights.scaling" -}}
# The deletion cost of the pods that go when a Consumer with `scaling` needs fewer
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
# The number of pods of a target, where its Consumer has `scaling`
- apiGroups: [apps]
  resources: [deployments/scale, statefulsets/scale]
  verbs: [patch]
# Whether somebody else sets the number of a target's pods
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch]
# The same, where KEDA is installed
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [list]
{{- end -}}

{{- define "capstan.rights.cluster" -}}
# Whether the definitions are as new as the operator
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [brokers.capstan.dev, consumers.capstan.dev, queues.capstan.dev]
  verbs: [get]
# Whether pods get their sidecars by admission
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingadmissionpolicies, mutatingadmissionpolicybindings]
  resourceNames: [{{ include "capstan.admissionPolicy" . }}]
  verbs: [get]
# Whether a volume may grow
- apiGroups: [storage.k8s.io]
  resources: [storageclasses]
  verbs: [get]
# Whether the node of a broker that does not answer is lost
- apiGroups: [""]
  resources: [nodes]
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
