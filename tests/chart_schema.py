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
_QUANTITY = {"type": ["string", "number"], "pattern": "^[0-9.]+(m|k|M|G|Ki|Mi|Gi)?$"}


def _closed(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    closed = {"type": "object", "additionalProperties": False, "properties": properties}
    return closed | ({"required": required} if required else {})


_AMOUNTS = _closed(["cpu", "memory"], cpu=_QUANTITY, memory=_QUANTITY)
_VALUES = _closed(
    ["mode", "image", "config", "secret", "ports", "resources"],
    mode={"enum": ["standalone", "sidecar"]},
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
    tls=_closed(secretName=_NAME_OR_NONE),
    ports=_closed(["data", "admin"], data=_PORT, admin=_PORT),
    resources=_closed(["requests", "limits"], requests=_AMOUNTS, limits=_AMOUNTS),
    classic=_closed(
        enabled={"type": "boolean"},
        preStopSeconds={"type": "integer", "minimum": 1, "maximum": 3600},
    ),
    podAnnotations=_STRINGS,
    podLabels=_STRINGS,
    nodeSelector=_STRINGS,
    tolerations={"type": "array", "items": {"type": "object"}},
    affinity={"type": "object"},
    terminationGracePeriodSeconds={"type": "integer", "minimum": 1},
    autoscaling=_closed(
        minReplicas={"type": "integer", "minimum": 1},
        maxReplicas={"type": "integer", "minimum": 1},
        cpuPercent={"type": "integer", "minimum": 1, "maximum": 100},
    ),
    networkPolicy=_closed(
        enabled={"type": "boolean"},
        callers=_PEERS,
        monitoring=_PEERS,
        upstreamPorts={"type": "array", "minItems": 1, "items": _PORT},
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
