{{/* The names, labels and images that several templates share. */}}

{{- define "capstan.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "capstan.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "capstan.fullname" .) -}}
{{- end -}}

{{- define "capstan.selector" -}}
app.kubernetes.io/name: capstan
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "capstan.labels" -}}
{{ include "capstan.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* An image's reference, from (dict "root" $ "image" .Values.images.…). */}}
{{- define "capstan.image" -}}
{{- with .root.Values.images.registry }}{{ . }}/{{ end -}}
{{- .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* What every pod of the operator's image has in its spec, from a pod's top. */}}
{{- define "capstan.pod" -}}
# It needs a few variables of its own, not those of every Service.
enableServiceLinks: false
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What Pod Security's level restricted asks of a container. */}}
{{- define "capstan.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Variables of the operator that its checks have too. */}}
{{- define "capstan.env" -}}
{{- if ne (include "capstan.injectionMode" .) "Template" }}
- name: CAPSTAN_ADMISSION_POLICY
  value: {{ include "capstan.admissionPolicy" . }}
{{- end }}
- name: CAPSTAN_LOG
  value: {{ .Values.log | quote }}
{{- if not (include "capstan.scaling" .) }}
- name: CAPSTAN_SCALING
  value: "false"
{{- end }}
{{- with .Values.watchNamespaces }}
- name: CAPSTAN_WATCH_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
{{- end -}}

{{/* Not empty unless scaling is switched off. Values of an older release that `--reuse-values` keeps do not have it. */}}
{{- define "capstan.scaling" -}}
{{- if ne (toString (.Values.scaling | default dict).enabled) "false" }}yes{{ end -}}
{{- end -}}

{{/* Not empty where the external scaler is wanted. Values of an older release that `--reuse-values` keeps do not have it. */}}
{{- define "capstan.externalScaler" -}}
{{- if (.Values.externalScaler | default dict).enabled }}yes{{ end -}}
{{- end -}}
