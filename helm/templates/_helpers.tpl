{{/* 40 characters leave room for suffixes: a DNS name has at most 63. */}}
{{- define "m3h.fullname" -}}
{{- $name := .Release.Name }}
{{- if not (contains .Chart.Name .Release.Name) }}{{ $name = printf "%s-%s" .Release.Name .Chart.Name }}{{ end }}
{{- .Values.fullnameOverride | default $name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Selector labels of a component: include "m3h.selector" (list . "server") */}}
{{- define "m3h.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "m3h.labels" -}}
{{- $root := index . 0 -}}
{{ include "m3h.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{- define "m3h.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 }}
{{- if eq $image.tag "latest" }}{{ fail "image.tag: latest is not a version, and pods could run different images; set a version" }}{{ end }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The common part of all pod specs. */}}
{{- define "m3h.pod" -}}
serviceAccountName: {{ include "m3h.fullname" . }}
automountServiceAccountToken: false
# With service links, a Service named m3h would set M3H_PORT=tcp://… in every pod.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  seccompProfile: { type: RuntimeDefault }
  {{- with .Values.runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  fsGroup: {{ int64 . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
{{- end }}

{{/* The common part of all containers. */}}
{{- define "m3h.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* Scheduling of a pod; the second argument: whether it needs a GPU. */}}
{{- define "m3h.nodes" -}}
{{- $root := index . 0 }}{{ $gpu := index . 1 }}
{{- if and $gpu $root.Values.gpu.runtimeClassName }}
runtimeClassName: {{ $root.Values.gpu.runtimeClassName }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat (ternary (list (dict "key" $root.Values.gpu.resource "operator" "Exists" "effect" "NoSchedule")) list $gpu) $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "m3h.resources" -}}
{{- $resources := deepCopy (index . 1) }}
{{- with index . 2 }}{{ $_ := set $resources.limits (index $ 0).Values.gpu.resource . }}{{ end -}}
resources: {{- toYaml $resources | nindent 2 }}
{{- end }}

{{- define "m3h.bundle" -}}
{{- ternary "/app/bundles" "/bundles" (eq .Values.bundle.source "image") }}/{{ .Values.bundle.path }}
{{- end }}

{{- define "m3h.redisSecret" -}}
{{- .Values.redis.existingSecret | default (printf "%s-redis" (include "m3h.fullname" .)) }}
{{- end }}

{{/* A Secret apart from that of the URL: a rendering may generate a new key, which must not restart pods. */}}
{{- define "m3h.redisKey" -}}
{{- .Values.redis.existingSecret | default (printf "%s-redis-key" (include "m3h.fullname" .)) }}
{{- end }}

{{/* DNS to any server: it is not always in kube-system. */}}
{{- define "m3h.dns" -}}
- ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
{{- end }}
