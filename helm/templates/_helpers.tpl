{{/* Room is left for what is put behind it: 63 is the most that a name in DNS may have. */}}
{{- define "m3h.fullname" -}}
{{- $name := .Release.Name }}
{{- if not (contains .Chart.Name .Release.Name) }}{{ $name = printf "%s-%s" .Release.Name .Chart.Name }}{{ end }}
{{- .Values.fullnameOverride | default $name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Of a component: include "m3h.selector" (list . "server") */}}
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
{{- if eq $image.tag "latest" }}{{ fail "image.tag: latest names no version; pods would differ" }}{{ end }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* What all pods have in common. */}}
{{- define "m3h.pod" -}}
serviceAccountName: {{ include "m3h.fullname" . }}
automountServiceAccountToken: false
# Else a Service named m3h would give every pod M3H_PORT=tcp://…
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

{{/* What all containers have in common. */}}
{{- define "m3h.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* Where a pod may run, and whether it needs a node with a GPU. */}}
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

{{/* Apart from the URL: it may change with each rendering, and must not start pods anew. */}}
{{- define "m3h.redisKey" -}}
{{- .Values.redis.existingSecret | default (printf "%s-redis-key" (include "m3h.fullname" .)) }}
{{- end }}

{{/* By name only, from a server anywhere: DNS is not always in kube-system. */}}
{{- define "m3h.dns" -}}
- ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
{{- end }}
