{{/* Stops with a sentence at values that a schema cannot refuse. */}}
{{- define "modelarts-gateway.validate" -}}
{{- if eq (int .Values.ports.data) (int .Values.ports.admin) -}}
{{- fail "ports: data and admin must differ" -}}
{{- end -}}
{{- $mounted := "/run/secrets/modelarts-gateway/" -}}
{{- range $name, $identity := .Values.config.identities -}}
{{- range $key := list "password_file" "secret_file" "token_file" "key_file" "value_file" "secret_key_file" -}}
{{- $file := get $identity $key | default "" -}}
{{- if and (hasPrefix $mounted $file) (not $.Values.secret.name) -}}
{{- fail (printf "secret.name: name the Secret that holds %s, for config.identities.%s.%s" (base $file) $name $key) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (get $identity "id_token_file" | default "") (print $mounted "id-token")) (not $.Values.idToken.audience) -}}
{{- fail (printf "idToken.audience: required by config.identities.%s.id_token_file; it is the client id of IAM's identity provider" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $service := .Values.config.services -}}
{{- $identity := $service.identity | default "default" -}}
{{- if not (hasKey ($.Values.config.identities | default dict) $identity) -}}
{{- fail (printf "config.services.%s: there is no identity %q in config.identities" $name $identity) -}}
{{- end -}}
{{- end -}}
{{- if .Values.fleet.enabled -}}
{{- if .Values.config.fleet -}}{{- fail "fleet: config.fleet is given too; keep one of them" -}}{{- end -}}
{{- if not .Values.fleet.secretName -}}
{{- fail (printf "fleet.secretName: name the Secret that holds %s" .Values.fleet.keyKey) -}}
{{- end -}}
{{- end -}}
{{- if .Values.listenTls.enabled -}}
{{- if .Values.config.listen_tls -}}{{- fail "listenTls: config.listen_tls is given too; keep one of them" -}}{{- end -}}
{{- if not .Values.listenTls.secretName -}}
{{- fail "listenTls.secretName: name the Secret that holds tls.crt and tls.key" -}}
{{- end -}}
{{- if and .Values.listenTls.allowedClients (not .Values.listenTls.clientCertificates) -}}
{{- fail "listenTls.allowedClients: callers without certificates have no names; set clientCertificates" -}}
{{- end -}}
{{- end -}}
{{- if .Values.tokenEndpoint.enabled -}}
{{- if .Values.config.token_listen -}}{{- fail "tokenEndpoint: config.token_listen is given too; keep one of them" -}}{{- end -}}
{{- if and (eq .Values.mode "standalone") (not .Values.extraContainers) -}}
{{- fail "tokenEndpoint: no other container of this pod could ask it; set extraContainers, or mode: sidecar" -}}
{{- end -}}
{{- if and (eq .Values.tokenEndpoint.by "loopback") (has (int .Values.tokenEndpoint.port) (list (int .Values.ports.data) (int .Values.ports.admin))) -}}
{{- fail "tokenEndpoint.port: must differ from ports.data and ports.admin" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* gateway.yaml, from `config` and what follows from other values. */}}
{{- define "modelarts-gateway.config" -}}
{{- include "modelarts-gateway.validate" . -}}
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
{{- with .Values.fleet -}}
{{- if .enabled -}}
{{- $folder := "/run/secrets/modelarts-gateway-fleet/" -}}
{{- $fleet := dict "url" .url "prefix" .prefix "key_file" (print $folder .keyKey) -}}
{{- if .username -}}{{- $_ := set $fleet "username" .username -}}{{- end -}}
{{- if .passwordKey -}}{{- $_ := set $fleet "password_file" (print $folder .passwordKey) -}}{{- end -}}
{{- if .caKey -}}{{- $_ := set $fleet "tls" (dict "ca_file" (print $folder .caKey)) -}}{{- end -}}
{{- $_ := set $own "fleet" $fleet -}}
{{- end -}}
{{- end -}}
{{- with .Values.listenTls -}}
{{- if .enabled -}}
{{- $folder := "/run/secrets/modelarts-gateway-listen-tls/" -}}
{{- $tls := dict "cert_file" (print $folder "tls.crt") "key_file" (print $folder "tls.key") -}}
{{- if .clientCertificates -}}{{- $_ := set $tls "client_ca_file" (print $folder "ca.crt") -}}{{- end -}}
{{- if .allowedClients -}}{{- $_ := set $tls "allowed_clients" .allowedClients -}}{{- end -}}
{{- $_ := set $own "listen_tls" $tls -}}
{{- end -}}
{{- end -}}
{{- with .Values.tokenEndpoint -}}
{{- if and .enabled (eq .by "socket") -}}
{{- $_ := set $own "token_listen" "unix:/run/modelarts-gateway/token.sock" -}}
{{- $_ := set $own "token_listen_mode" .mode -}}
{{- else if .enabled -}}
{{- $_ := set $own "token_listen" (printf "127.0.0.1:%d" (int .port)) -}}
{{- end -}}
{{- end -}}
{{- toYaml (merge $own .Values.config) -}}
{{- end -}}

{{/* An annotation of the pod: a changed configuration makes new pods. */}}
{{- define "modelarts-gateway.checksum" -}}
checksum/modelarts-gateway: {{ include "modelarts-gateway.config" . | sha256sum }}
{{- end -}}
