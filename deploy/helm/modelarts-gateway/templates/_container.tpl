{{/* The container; a pod's other parts decide what is around it. */}}
{{- define "modelarts-gateway.container" -}}
name: modelarts-gateway
image: {{ include "modelarts-gateway.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve]
env:
  - name: GATEWAY_CONFIG
    value: /etc/modelarts-gateway/gateway.yaml
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  {{- if eq .Values.mode "standalone" }}
  - name: gateway-http
    containerPort: {{ .Values.ports.data }}
  {{- end }}
  - name: admin
    containerPort: {{ .Values.ports.admin }}
{{- /* The figures' reasons: deploy/kubernetes/sidecar.yaml */}}
startupProbe:
  httpGet: {path: /startupz, port: admin}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- if and .Values.classic.enabled (eq .Values.mode "sidecar") }}
lifecycle:
  preStop:
    exec:
      command: [python, -c, "import time; time.sleep({{ .Values.classic.preStopSeconds }})"]
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "modelarts-gateway.withoutNulls" .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: modelarts-gateway-config
    mountPath: /etc/modelarts-gateway
    readOnly: true
  {{- if or .Values.secret.name .Values.idToken.audience }}
  - name: modelarts-gateway-secret
    mountPath: /run/secrets/modelarts-gateway
    readOnly: true
  {{- end }}
  {{- if .Values.tls.secretName }}
  - name: modelarts-gateway-tls
    mountPath: /run/tls
    readOnly: true
  {{- end }}
  {{- if .Values.fleet.enabled }}
  - name: modelarts-gateway-fleet
    mountPath: /run/secrets/modelarts-gateway-fleet
    readOnly: true
  {{- end }}
  {{- if .Values.listenTls.enabled }}
  - name: modelarts-gateway-listen-tls
    mountPath: /run/secrets/modelarts-gateway-listen-tls
    readOnly: true
  {{- end }}
  {{- if and .Values.tokenEndpoint.enabled (eq .Values.tokenEndpoint.by "socket") }}
  - name: modelarts-gateway-token
    mountPath: /run/modelarts-gateway
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* An item of the pod's initContainers; with classic.enabled one of its containers. */}}
{{- define "modelarts-gateway.sidecar" -}}
{{- if and (not .Values.classic.enabled) (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail "native sidecars need Kubernetes 1.29: set classic.enabled, and list this among `containers`" -}}
{{- end -}}
- {{ include "modelarts-gateway.container" . | nindent 2 | trim }}
  {{- if not .Values.classic.enabled }}
  restartPolicy: Always
  {{- end }}
{{- end -}}

{{/* Items of the pod's volumes. */}}
{{- define "modelarts-gateway.volumes" -}}
{{- /* without the pod's fsGroup only a mode for everyone lets 65532 read; one container mounts it */ -}}
{{- $mode := ternary 0440 0444 (eq .Values.mode "standalone") -}}
- name: modelarts-gateway-config
  configMap:
    name: {{ include "modelarts-gateway.name" . }}
{{- if .Values.idToken.audience }}
- name: modelarts-gateway-secret
  projected:
    defaultMode: {{ $mode }}
    sources:
      - serviceAccountToken:
          path: id-token
          audience: {{ .Values.idToken.audience | quote }}
          expirationSeconds: {{ .Values.idToken.expirationSeconds }}
      {{- if .Values.secret.name }}
      - secret:
          name: {{ .Values.secret.name }}
          optional: false
      {{- end }}
{{- else if .Values.secret.name }}
- name: modelarts-gateway-secret
  secret:
    secretName: {{ .Values.secret.name }}
    optional: false # without it the pod waits, and says so in its events
    defaultMode: {{ $mode }}
{{- end }}
{{- if .Values.tls.secretName }}
- name: modelarts-gateway-tls
  secret:
    secretName: {{ .Values.tls.secretName }}
    defaultMode: {{ $mode }}
{{- end }}
{{- if .Values.fleet.enabled }}
- name: modelarts-gateway-fleet
  secret:
    secretName: {{ .Values.fleet.secretName }}
    optional: false
    defaultMode: {{ $mode }}
{{- end }}
{{- if .Values.listenTls.enabled }}
- name: modelarts-gateway-listen-tls
  secret:
    secretName: {{ .Values.listenTls.secretName }}
    optional: false
    defaultMode: {{ $mode }}
{{- end }}
{{- if and .Values.tokenEndpoint.enabled (eq .Values.tokenEndpoint.by "socket") }}
- name: modelarts-gateway-token
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
