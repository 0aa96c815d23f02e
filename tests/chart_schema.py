"""What the Helm chart's values may be: its values.schema.json, with the gateway's own schema in it.

A value that cannot work stops `helm install`, not the first request.
"""

import copy
import json
from typing import Any

from gateway.settings.identity import LOGIN_KEYS

_SECRET_FILE = {
    "password": "password_file",
    "application_credential": "secret_file",
    "api_key": "key_file",
    "header": "value_file",
}
_MOUNTED = {"type": "string", "pattern": "^/run/secrets/modelarts-gateway/[^/]+$"}

_NAME = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"}
_NAME_OR_NONE = {"type": "string", "pattern": "^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$"}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_PEERS = {"type": "array", "minItems": 1, "items": {"type": "object", "minProperties": 1}}
_TEXT = {"type": "string"}
_OBJECTS = {"type": "array", "items": {"type": "object", "minProperties": 1}}
_NAMED = {
    "type": "array",
    "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
}
_SECURITY = {
    "type": "object",
    "properties": {
        key: {"type": [kind, "null"]}
        for kind, keys in {
            "integer": ["runAsUser", "runAsGroup", "fsGroup"],
            "boolean": ["runAsNonRoot", "readOnlyRootFilesystem", "allowPrivilegeEscalation"],
            "object": ["seccompProfile", "capabilities", "seLinuxOptions"],
        }.items()
        for key in keys
    },
}
"""What it has beside these is the API server's to check; null takes a default away."""
_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
_KEY = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,253}$"}
_KEY_OR_NONE = {"type": "string", "pattern": "^[A-Za-z0-9._-]{0,253}$"}
_REDIS = (
    "^(|rediss://.+|redis://(localhost|127\\.[0-9.]+|\\[::1\\])(:[0-9]+)?(/[0-9]*)?|unix:///.+)$"
)
_QUANTITY = {"type": ["string", "number"], "pattern": "^[0-9.]+(m|k|M|G|Ki|Mi|Gi)?$"}


def _closed(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    closed = {"type": "object", "additionalProperties": False, "properties": properties}
    return closed | ({"required": required} if required else {})


def _when_enabled(key: str) -> dict[str, Any]:
    """Require a value of one character or more while `enabled` is true."""
    return {
        "if": {"properties": {"enabled": {"const": True}}, "required": ["enabled"]},
        "then": {"required": [key], "properties": {key: {"minLength": 1}}},
    }


_AMOUNTS = _closed(["cpu", "memory"], cpu=_QUANTITY, memory=_QUANTITY)
_VALUES = _closed(
    ["mode", "image", "config", "secret", "ports", "resources"],
    mode={"enum": ["standalone", "sidecar"]},
    nameOverride=_NAME_OR_NONE,
    fullnameOverride=_NAME_OR_NONE,
    image=_closed(
        ["repository"],
        repository={"type": "string", "pattern": "^[a-z0-9][a-zA-Z0-9._:/-]*$"},
        tag={"type": "string", "pattern": "^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$"},
        digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
        pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
        pullSecrets={"type": "array", "items": _NAME},
    ),
    config={"$ref": "#/$defs/Config"},
    secret=_closed(["name"], name=_NAME_OR_NONE),
    idToken=_closed(
        audience=_TEXT,
        expirationSeconds={"type": "integer", "minimum": 600},  # Kubernetes takes no less
    ),
    tls=_closed(secretName=_NAME_OR_NONE),
    fleet=_closed(
        enabled={"type": "boolean"},
        url={"type": "string", "pattern": _REDIS},
        username=_TEXT,
        prefix={"type": "string", "pattern": "^[A-Za-z0-9:._-]{1,64}$"},
        secretName=_NAME_OR_NONE,
        keyKey=_KEY,
        passwordKey=_KEY_OR_NONE,
        caKey=_KEY_OR_NONE,
    )
    | _when_enabled("url"),
    listenTls=_closed(
        enabled={"type": "boolean"},
        secretName=_NAME_OR_NONE,
        clientCertificates={"type": "boolean"},
        allowedClients={"type": "array", "items": {"type": "string", "minLength": 1}},
    ),
    tokenEndpoint=_closed(
        enabled={"type": "boolean"},
        by={"enum": ["socket", "loopback"]},
        mode={"type": "string", "pattern": "^0?[0-7]{3}$"},
        port=_PORT,
    ),
    ports=_closed(["data", "admin"], data=_PORT, admin=_PORT),
    resources=_closed(["requests", "limits"], requests=_AMOUNTS, limits=_AMOUNTS),
    securityContext=_SECURITY,
    extraEnv=_NAMED,
    extraVolumes=_NAMED,
    extraVolumeMounts={
        "type": "array",
        "items": {"type": "object", "required": ["name", "mountPath"]},
    },
    classic=_closed(
        enabled={"type": "boolean"},
        preStopSeconds={"type": "integer", "minimum": 1, "maximum": 3600},
    ),
    podMonitor=_closed(enabled={"type": "boolean"}, labels=_STRINGS, interval=_DURATION),
    prometheusRule=_closed(
        enabled={"type": "boolean"},
        labels=_STRINGS,
        runbookUrl={"type": "string", "pattern": "^(https?://[^ ]+)?$"},
    ),
    dashboard=_closed(enabled={"type": "boolean"}, labels=_STRINGS, annotations=_STRINGS),
    podAnnotations=_STRINGS,
    podLabels=_STRINGS,
    podSecurityContext=_SECURITY,
    extraContainers=_NAMED,
    nodeSelector=_STRINGS,
    tolerations={"type": "array", "items": {"type": "object"}},
    affinity={"type": "object"},
    priorityClassName=_NAME_OR_NONE,
    serviceAccount=_closed(create={"type": "boolean"}, name=_NAME_OR_NONE, annotations=_STRINGS),
    service=_closed(annotations=_STRINGS),
    terminationGracePeriodSeconds={"type": "integer", "minimum": 1},
    replicas={"type": "integer", "minimum": 0},
    autoscaling=_closed(
        enabled={"type": "boolean"},
        minReplicas={"type": "integer", "minimum": 1},
        maxReplicas={"type": "integer", "minimum": 1},
        cpuPercent={"type": "integer", "minimum": 1, "maximum": 100},
    ),
    podDisruptionBudget=_closed(
        enabled={"type": "boolean"},
        maxUnavailable={"type": ["integer", "string"], "minimum": 1, "pattern": "^[1-9][0-9]?0?%$"},
    ),
    networkPolicy=_closed(
        enabled={"type": "boolean"},
        callers=_PEERS,
        monitoring=_PEERS,
        dns=_closed(to=_PEERS, ports={"type": "array", "minItems": 1, "items": _PORT}),
        upstreamPorts={"type": "array", "minItems": 1, "items": _PORT},
        extraEgress=_OBJECTS,
    ),
    **{"global": {"type": "object"}},  # what Helm itself hands to a chart inside a chart
)


def chart_schema(settings: dict[str, Any]) -> str:
    """Return values.schema.json.

    Args:
        settings: the JSON Schema of the configuration file.
    """
    known = copy.deepcopy(settings["$defs"])
    config = {key: copy.deepcopy(settings[key]) for key in ("type", "additionalProperties")}
    config["properties"] = copy.deepcopy(settings["properties"])
    for key in ("listen", "admin_listen"):  # follow from `mode` and `ports`
        del config["properties"][key]
    config["properties"]["services"]["minProperties"] = 1
    config["required"] = ["services"]
    known["Identity"]["allOf"] = [_needs(method) for method in LOGIN_KEYS]
    made = {
        # Helm 3 knows no later one
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart modelarts-gateway",
        "$defs": known | {"Config": config},
    }
    return json.dumps(made | _VALUES, indent=2, ensure_ascii=False) + "\n"


def _needs(method: str) -> dict[str, Any]:
    """What an identity of this method must have: in a cluster its secret is a file."""
    required, _ = LOGIN_KEYS[method]
    needed: dict[str, Any] = {"required": sorted(required)}
    if method in _SECRET_FILE:
        needed["required"].append(_SECRET_FILE[method])
        needed["properties"] = {_SECRET_FILE[method]: _MOUNTED}
    if method in {"password", "oidc"}:
        needed["anyOf"] = [{"required": ["project"]}, {"required": ["project_id"]}]
    if method == "ak_sk":
        needed["anyOf"] = [
            {"required": ["from"]},
            {"required": ["secret_key_file"], "properties": {"secret_key_file": _MOUNTED}},
        ]
    chosen = {"properties": {"method": {"const": method}}}
    # without `method` the first rule holds, as its condition only looks at what is there
    return {"if": chosen if method == "password" else chosen | {"required": ["method"]}} | {
        "then": needed
    }
