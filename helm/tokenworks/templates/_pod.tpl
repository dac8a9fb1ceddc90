{{/* What the pods of the meter and of the jobs have in common. */}}
{{- define "tokenworks.podSpec" -}}
# Nothing here speaks to the Kubernetes API, and nothing is found by environment variables.
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "tokenworks.container" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Where the database is. Takes {existingSecret, key}. */}}
{{- define "tokenworks.databaseEnv" -}}
- name: TOKENWORKS_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .key }}
{{- end -}}

{{/* The environment of every process that does not migrate. */}}
{{- define "tokenworks.env" -}}
{{ include "tokenworks.databaseEnv" .Values.database }}
{{- range $name, $value := .Values.settings }}
- name: TOKENWORKS_{{ upper $name }}
  {{- if kindIs "slice" $value }}
  value: {{ join "," $value | quote }}
  {{- else if kindIs "float64" $value }}
  {{- /* Every number here is a float, and would be written as 2.68435456e+08. */}}
  value: {{ printf "%.0f" $value | quote }}
  {{- else }}
  value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where months of the journal lie that left the database: for whoever writes or reads those. */}}
{{- define "tokenworks.archiveEnv" -}}
{{- if .Values.archive.existingClaim -}}
- name: TOKENWORKS_ARCHIVE_FOLDER
  value: /var/lib/tokenworks/archive
{{- end -}}
{{- end -}}

{{- define "tokenworks.archiveMount" -}}
{{- if .Values.archive.existingClaim -}}
- name: archive
  mountPath: /var/lib/tokenworks/archive
{{- end -}}
{{- end -}}

{{- define "tokenworks.archiveVolume" -}}
{{- if .Values.archive.existingClaim -}}
- name: archive
  persistentVolumeClaim:
    claimName: {{ .Values.archive.existingClaim }}
{{- end }}
{{- end -}}

{{/* A temporary folder: whoever makes papers lays their fonts into one for a moment. */}}
{{- define "tokenworks.scratchMount" -}}
- name: scratch
  mountPath: /tmp
{{- end -}}

{{- define "tokenworks.scratchVolume" -}}
- name: scratch
  emptyDir:
    medium: Memory
    sizeLimit: 16Mi
{{- end -}}
