{{/* Migrations of a stage, as a hook. Takes {root, stage, hook, serviceAccount, waitSeconds}. */}}
{{- define "tokenworks.migration" -}}
{{- $component := printf "db-upgrade-%s" .stage -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "tokenworks.fullname" .root }}-{{ $component }}
  labels:
    {{- include "tokenworks.labels" (dict "root" .root "component" $component) | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .hook }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  backoffLimit: 2
  template:
    metadata:
      labels:
        {{- include "tokenworks.podLabels" (dict "root" .root "component" $component) | nindent 8 }}
    spec:
      serviceAccountName: {{ .serviceAccount }}
      {{- include "tokenworks.podSpec" .root | nindent 6 }}
      restartPolicy: Never
      {{- with .waitSeconds }}
      initContainers:
        # Helm goes on when the new pods are ready; the last old one still has its time to end.
        - name: wait
          {{- include "tokenworks.container" $.root | nindent 10 }}
          command: [sleep, {{ . | quote }}]
          resources:
            {{- toYaml $.root.Values.jobs.resources | nindent 12 }}
      {{- end }}
      containers:
        - name: {{ $component }}
          {{- include "tokenworks.container" .root | nindent 10 }}
          command: [tokenworks, db, upgrade, --stage, {{ .stage }}]
          env:
            {{- with .root.Values.migrations.database }}
            {{- include "tokenworks.databaseEnv" (ternary . $.root.Values.database (ne .existingSecret "")) | nindent 12 }}
            {{- end }}
          resources:
            {{- toYaml .root.Values.jobs.resources | nindent 12 }}
{{- end -}}

{{/* A scheduled job on the database. Takes {root, component, schedule, timeZone, command, backoffLimit}. */}}
{{- define "tokenworks.cronJob" -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "tokenworks.fullname" .root }}-{{ .component }}
  labels:
    {{- include "tokenworks.labels" (dict "root" .root "component" .component) | nindent 4 }}
spec:
  schedule: {{ .schedule | quote }}
  timeZone: {{ .timeZone | quote }}
  concurrencyPolicy: Forbid
  # A cluster that was away at the hour does it late, on the same day.
  startingDeadlineSeconds: 43200
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      backoffLimit: {{ .backoffLimit }}
      # What a rule refuses stays refused until a person acts: another try would hide it for longer.
      podFailurePolicy:
        rules:
          - action: FailJob
            onExitCodes:
              operator: In
              values: [3]
          # A node that is drained in the midst of it is no failure of the job.
          - action: Ignore
            onPodConditions:
              - type: DisruptionTarget
                status: "True"
      template:
        metadata:
          labels:
            {{- include "tokenworks.podLabels" (dict "root" .root "component" .component) | nindent 12 }}
        spec:
          serviceAccountName: {{ include "tokenworks.serviceAccount" .root }}
          {{- include "tokenworks.podSpec" .root | nindent 10 }}
          restartPolicy: Never
          containers:
            - name: {{ .component }}
              {{- include "tokenworks.container" .root | nindent 14 }}
              command:
                {{- toYaml .command | nindent 16 }}
              env:
                {{- include "tokenworks.env" .root | nindent 16 }}
                {{- with include "tokenworks.archiveEnv" .root }}{{ . | nindent 16 }}{{ end }}
              resources:
                {{- toYaml .root.Values.jobs.resources | nindent 16 }}
              volumeMounts:
                {{- include "tokenworks.scratchMount" .root | nindent 16 }}
                {{- with include "tokenworks.archiveMount" .root }}{{ . | nindent 16 }}{{ end }}
          volumes:
            {{- include "tokenworks.scratchVolume" .root | nindent 12 }}
            {{- with include "tokenworks.archiveVolume" .root }}{{ . | nindent 12 }}{{ end }}
{{- end -}}
