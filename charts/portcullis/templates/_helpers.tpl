{{- define "portcullis.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "portcullis.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if contains (include "portcullis.name" .) .Release.Name -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (include "portcullis.name" .) | trunc 53 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "portcullis.selectorLabels" -}}
app.kubernetes.io/name: {{ include "portcullis.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "portcullis.labels" -}}
{{ include "portcullis.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "portcullis.serviceAccount" -}}
{{ default (ternary (include "portcullis.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "portcullis.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* The Secret the certificate is in. */}}
{{- define "portcullis.certificate" -}}
{{- if eq .Values.certificates.mode "secret" -}}
{{ required "certificates.secret.name: with `certificates.mode: secret`, name the Secret with `tls.crt` and `tls.key`" .Values.certificates.secret.name }}
{{- else if eq .Values.certificates.mode "cert-manager" -}}
{{- /* Not the gate's own: replicas from before a change of mode would take it from cert-manager again and again. */ -}}
{{ include "portcullis.fullname" . }}-cert-manager-tls
{{- else -}}
{{ include "portcullis.fullname" . }}-tls
{{- end -}}
{{- end }}

{{/* The configuration file, as a value: the chart's own namespace is exempt unless something else is said. */}}
{{- define "portcullis.config" -}}
{{- $own := dict "exempt" (list "kube-system" "kube-public" "kube-node-lease" .Release.Namespace) -}}
{{- $config := mergeOverwrite (dict "profile" .Values.profile "mode" .Values.mode "namespaces" $own) (deepCopy .Values.config) -}}
{{ toYaml $config }}
{{- end }}

{{/* Whether the failure policy is proved and set at run time. */}}
{{- define "portcullis.probes" -}}
{{- if .Values.probe.namespace }}true{{ end -}}
{{- end }}
