{{- define "olearning.name" -}}
{{- printf "%s-%s" .root.Release.Name .name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "olearning.selector" -}}
app.kubernetes.io/name: olearning
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .zone }}
olearning/zone: {{ . }}
{{- end }}
{{- end -}}

{{- define "olearning.labels" -}}
{{ include "olearning.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "olearning.load" -}}
{{- range .Values.code.load }}
- --load
- {{ . }}
{{- end }}
{{- end -}}

{{/*
A role as a Deployment, with a PodDisruptionBudget where there are several: root, name, component, zone, image (of images), args,
replicas, resources, load (people's own code), http (the port where others speak to it), secrets (by folder, the Secret that is mounted there).
*/}}
{{- define "olearning.role" -}}
{{- $v := .root.Values -}}
{{- $image := index $v.images (default "plane" .image) -}}
{{- $client := default $v.kafka.client.secret (index $v.kafka.client.secrets .component) -}}
{{- $secrets := .secrets | default dict -}}
{{- if $client }}{{ $secrets = merge (dict "kafka" $client) $secrets }}{{ end -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "olearning.name" . }}
  labels: {{- include "olearning.labels" . | nindent 4 }}
spec:
  {{- if not .scaled }}
  replicas: {{ .replicas }}
  {{- end }}
  # The new one stands by before the old one goes.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {{- include "olearning.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "olearning.labels" . | nindent 8 }}
      annotations:
        {{- if and $v.metricsPort (not .page) }}
        prometheus.io/scrape: "true"
        prometheus.io/port: {{ $v.metricsPort | quote }}
        {{- end }}
        {{- with $v.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      # What was sent lands, and its seats are given back.
      terminationGracePeriodSeconds: 30
      {{- with $v.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        seccompProfile: {type: RuntimeDefault}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "olearning.selector" . | nindent 14 }}
      containers:
        - name: {{ .component }}
          image: "{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}"
          imagePullPolicy: {{ $image.pullPolicy }}
          args:
            {{- toYaml .args | nindent 12 }}
            - --namespace
            - {{ $v.namespace }}
            {{- if .load }}
            {{- include "olearning.load" .root | nindent 12 }}
            {{- end }}
          env:
            - name: KAFKA_BOOTSTRAP_SERVERS
              value: {{ required "kafka.bootstrapServers must name your brokers, as in --set kafka.bootstrapServers=host:9092" $v.kafka.bootstrapServers | quote }}
            {{- if $client }}
            - name: KAFKA_CLIENT_CONFIG
              value: /run/secrets/kafka/client.properties
            {{- end }}
            - name: OLEARNING_METRICS_PORT
              value: {{ ternary "0" ($v.metricsPort | toString) (default false .page) | quote }}
            - name: OLEARNING_LOG_FORMAT
              value: {{ $v.log.format }}
            - name: OLEARNING_LOG_LEVEL
              value: {{ $v.log.level }}
            {{- with $v.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            {{- if not .page }}
            - {name: metrics, containerPort: {{ $v.metricsPort }}}
            {{- end }}
            {{- with .http }}
            - {name: http, containerPort: {{ . }}}
            {{- end }}
          {{- if .page }}
          readinessProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
          livenessProbe:
            tcpSocket: {port: http}
            periodSeconds: 15
          {{- else }}
          # What it asks for is read in the event loop, within 5 s.
          startupProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 2
            timeoutSeconds: 6
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 15
            timeoutSeconds: 6
            failureThreshold: 4
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 6
          {{- end }}
          resources: {{- toYaml .resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- if $v.code.configMap }}
            - {name: code, mountPath: /code, readOnly: true}
            {{- end }}
            {{- range $folder, $_ := $secrets }}
            - {name: secret-{{ $folder }}, mountPath: /run/secrets/{{ $folder }}, readOnly: true}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 1Gi}
        {{- with $v.code.configMap }}
        - name: code
          configMap: {name: {{ . }}}
        {{- end }}
        {{- range $folder, $secret := $secrets }}
        - name: secret-{{ $folder }}
          secret: {secretName: {{ $secret }}}
        {{- end }}
      {{- with $v.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- if gt (int .replicas) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "olearning.name" . }}
  labels: {{- include "olearning.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "olearning.selector" . | nindent 6 }}
{{- end }}
{{- end -}}
