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

{{/* What a cluster heals with, as a list: never sent, but for what could cut off cluster DNS. */}}
{{- define "portcullis.system" -}}
[kube-system, kube-public, kube-node-lease]
{{- end }}

{{/* The configuration file, as a value: the chart's own namespace is exempt unless something else is said. */}}
{{- define "portcullis.config" -}}
{{- $own := dict "exempt" (append (include "portcullis.system" . | fromYamlArray) .Release.Namespace) -}}
{{- /* Values left empty are the chart's defaults and not the program's, whose mode is not for the first day. */ -}}
{{- $set := dict "profile" (.Values.profile | default "baseline") "mode" (.Values.mode | default "warn") "namespaces" $own -}}
{{- $config := mergeOverwrite $set (deepCopy (.Values.config | default dict)) -}}
{{ toYaml $config }}
{{- end }}

{{/* Whether the failure policy is proved and set at run time. */}}
{{- define "portcullis.probes" -}}
{{- if .Values.probe.namespace }}true{{ end -}}
{{- end }}

{{/* The namespaces the webhook leaves out, as a list. */}}
{{- define "portcullis.excluded" -}}
{{- $config := include "portcullis.config" . | fromYaml -}}
{{- $root := ($config.mesh | default dict).rootNamespace | default "istio-system" -}}
{{- /* Names, and no patterns: a selector knows only whole names. */ -}}
{{- $system := include "portcullis.system" . | fromYamlArray -}}
{{- $excluded := $system -}}
{{- range ($config.namespaces | default dict).exempt -}}
{{- if not (hasSuffix "*" .) -}}{{- $excluded = append $excluded . -}}{{- end -}}
{{- end -}}
{{- /* The policies of the mesh's root hold for the whole mesh, exempt or not. */ -}}
{{- if not (has $root $system) -}}{{- $excluded = without $excluded $root -}}{{- end -}}
{{ append $excluded .Release.Namespace | uniq | sortAlpha | toYaml }}
{{- end }}

{{/*
What of a selector these labels do not meet; nothing where they meet all of it. Takes `selector` and `labels`, and `only`
where no more than that one label is known.
*/}}
{{- define "portcullis.unmet" -}}
{{- $labels := .labels | default dict -}}
{{- $only := .only -}}
{{- range $key, $value := .selector.matchLabels -}}
{{- if and (ne (get $labels $key) $value) (has $only (list "" $key)) }} {{ $key }}={{ $value }}{{ end -}}
{{- end -}}
{{- range .selector.matchExpressions -}}
{{- if not (has $only (list "" .key)) }}{{ continue }}{{ end -}}
{{- $has := hasKey $labels .key -}}
{{- $in := and $has (has (get $labels .key) (.values | default list)) -}}
{{- if or (and (eq .operator "In") (not $in)) (and (eq .operator "NotIn") $in) (and (eq .operator "Exists") (not $has)) (and (eq .operator "DoesNotExist") $has) }} {{ .key }} {{ .operator }}{{ with .values }} {{ toJson . }}{{ end }}{{ end -}}
{{- end -}}
{{- end }}

{{/* What resolves names, as rules of egress: what the configuration names, else what cluster DNS usually is. */}}
{{- define "portcullis.toDns" -}}
{{- $dns := (include "portcullis.config" . | fromYaml).dns | default dict -}}
{{- range $dns.addresses }}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
  to:
    - ipBlock: {cidr: {{ printf "%s/%d" . (contains ":" . | ternary 128 32) | quote }}}
{{- end }}
{{- range $dns.services }}
# Which of its pods answer, and on which port, the Service knows and the chart does not.
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .namespace }}
{{- end }}
{{- if not (or $dns.addresses $dns.services) }}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
  to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
      podSelector:
        matchLabels:
          k8s-app: kube-dns
{{- end }}
{{- end }}

{{/* Whether something for Prometheus' operator is wanted: `auto` is where its API has that kind. Takes `enabled`, `kind` and `root`. */}}
{{- define "portcullis.monitored" -}}
{{- if eq (toString .enabled) "auto" -}}
{{- if .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) }}true{{ end -}}
{{- else if .enabled }}true{{ end -}}
{{- end }}

{{/* Where the replicas that stand have their certificate from; empty where there are none, or none are seen. */}}
{{- define "portcullis.standingCertificate" -}}
{{- $pod := dig "spec" "template" "spec" dict (lookup "apps/v1" "Deployment" .Release.Namespace (include "portcullis.fullname" .)) }}
{{- range $pod.volumes }}
{{- if eq .name "tls" }}{{ .secret.secretName }}{{ end }}
{{- end }}
{{- range $pod.containers }}
{{- range .args }}
{{- if hasPrefix "--certificate-secret=" . }}{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The `caBundle` of an entry, `live` as it stands; empty where it is not the chart's. While replicas stand that have
their certificate from elsewhere than those to come, what they are trusted by stays beside what is new. What was
written once, as `kept` tells, is written on: left out, a Helm that merges by itself would take it away.
*/}}
{{- define "portcullis.caBundle" -}}
{{- $certificates := .root.Values.certificates }}
{{- $given := ternary $certificates.secret.caBundle "" (eq $certificates.mode "secret") }}
{{- $standing := include "portcullis.standingCertificate" .root }}
{{- $coming := include "portcullis.certificate" .root }}
{{- if eq $certificates.mode "self" }}{{ $coming = printf "--certificate-secret=%s" $coming }}{{ end }}
{{- $live := "" }}
{{- if or (and $standing (ne $standing $coming)) (and .kept (not $given)) }}{{ $live = .live | default "" }}{{ end }}
{{- if and $given $live -}}
{{ printf "%s\n%s" (b64dec $given) (b64dec $live) | b64enc }}
{{- else -}}
{{ $given }}{{ $live }}
{{- end }}
{{- end }}
