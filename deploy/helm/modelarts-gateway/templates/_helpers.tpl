{{- define "modelarts-gateway.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "modelarts-gateway.selector" -}}
app.kubernetes.io/name: modelarts-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "modelarts-gateway.labels" -}}
{{ include "modelarts-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "modelarts-gateway.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* gateway.yaml, after what a schema cannot say. */}}
{{- define "modelarts-gateway.config" -}}
{{- if eq (int .Values.ports.data) (int .Values.ports.admin) -}}
{{- fail "ports: data and admin must differ" -}}
{{- end -}}
{{- range $name, $identity := .Values.config.identities -}}
{{- range $key := list "password_file" "secret_file" "token_file" -}}
{{- $file := get $identity $key | default "" -}}
{{- if and (hasPrefix "/run/secrets/modelarts-gateway/" $file) (not $.Values.secret.name) -}}
{{- fail (printf "secret.name: name the Secret that holds %s, for config.identities.%s.%s" (base $file) $name $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $service := .Values.config.services -}}
{{- $identity := $service.identity | default "default" -}}
{{- if not (hasKey ($.Values.config.identities | default dict) $identity) -}}
{{- fail (printf "config.services.%s: there is no identity %q in config.identities" $name $identity) -}}
{{- end -}}
{{- end -}}
{{- $standalone := eq .Values.mode "standalone" -}}
{{- $own := dict
      "listen" (printf "%s:%d" (ternary "0.0.0.0" "127.0.0.1" $standalone) (int .Values.ports.data))
      "admin_listen" (printf "0.0.0.0:%d" (int .Values.ports.admin)) -}}
{{- if $standalone -}}
{{- $name := include "modelarts-gateway.name" . -}}
{{- $in := printf "%s.%s" $name .Release.Namespace -}}
{{- $_ := set $own "allowed_hosts" (concat
      (list $name $in (printf "%s.svc" $in) (printf "%s.svc.cluster.local" $in))
      (.Values.config.allowed_hosts | default list)) -}}
{{- /* 5 s for the Service to forget the pod; a prediction may take 40 s */ -}}
{{- $_ := set $own "drain" (merge dict (.Values.config.drain | default dict)
      (dict "announce" "5s" "timeout" "45s")) -}}
{{- end -}}
{{- toYaml (merge $own .Values.config) -}}
{{- end -}}

{{/* The container; a pod's other parts decide what is around it. */}}
{{- define "modelarts-gateway.container" -}}
name: modelarts-gateway
image: {{ include "modelarts-gateway.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve]
env:
  - name: GATEWAY_CONFIG
    value: /etc/modelarts-gateway/gateway.yaml
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
  runAsUser: 65532
  runAsGroup: 65532
  runAsNonRoot: true
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  seccompProfile:
    type: RuntimeDefault
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: modelarts-gateway-config
    mountPath: /etc/modelarts-gateway
    readOnly: true
  {{- if .Values.secret.name }}
  - name: modelarts-gateway-secret
    mountPath: /run/secrets/modelarts-gateway
    readOnly: true
  {{- end }}
  {{- if .Values.tls.secretName }}
  - name: modelarts-gateway-tls
    mountPath: /run/tls
    readOnly: true
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
{{- if .Values.secret.name }}
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
{{- end -}}

{{/* An annotation of the pod: a changed configuration makes new pods. */}}
{{- define "modelarts-gateway.checksum" -}}
checksum/modelarts-gateway: {{ include "modelarts-gateway.config" . | sha256sum }}
{{- end -}}
