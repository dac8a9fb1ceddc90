{{/* Leaves room for "-billing-close": the name of a CronJob has 52 characters at most. */}}
{{- define "tokenworks.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 38 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 38 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Takes {root, component}: a Service must find the meter's pods and not those of a job. */}}
{{- define "tokenworks.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Those of a pod: what it is chosen by, and what the cluster asks of every object. */}}
{{- define "tokenworks.podLabels" -}}
{{ include "tokenworks.selectorLabels" . }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tokenworks.labels" -}}
{{ include "tokenworks.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The account of what is there between the hooks; "default" has no rights that are used. */}}
{{- define "tokenworks.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- include "tokenworks.fullname" . -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The Secret of the server's certificate; empty in the clear. */}}
{{- define "tokenworks.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{- include "tokenworks.fullname" . }}-tls
{{- else -}}
{{- .Values.tls.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* "true" where HTTP is over TLS as well. */}}
{{- define "tokenworks.httpTls" -}}
{{- if and (include "tokenworks.tlsSecret" .) .Values.tls.http -}}true{{- end -}}
{{- end -}}
