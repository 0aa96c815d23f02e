"""The types of single settings: a parser with its sentence, and what an editor is told of it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, SecretStr, WithJsonSchema

from gateway.settings import addresses, values
from gateway.settings.addresses import ListenAddress


def split_list(value: Any) -> Any:
    """Take lists as the environment writes them: as JSON, or separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('not a JSON list; use ["one", "two"] or one,two') from None
    return [part.strip() for part in value.split(",") if part.strip()]


def parse_list(value: Any) -> Any:
    """Take lists of sections, which the environment writes as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("not a JSON list; use a list of mappings") from None


def parse_readable_file(value: Any) -> Path:
    """Return the path of a file that exists and can be read now."""
    path = Path(values.parse_text(str(value) if isinstance(value, Path) else value))
    try:
        path.open("rb").close()
    except OSError as error:
        reason = {
            "FileNotFoundError": "no such file; mount it or correct the path",
            "PermissionError": "not readable for this user; correct its mode or owner",
            "IsADirectoryError": "a folder; name the file in it",
        }.get(type(error).__name__, "cannot be read; correct the path")
        raise ValueError(f"{values.shown(str(path))}: {reason}") from None
    return path


def parse_optional_file(value: Any) -> Path:
    """Return the path of a file that may be missing, but can be read if it is there."""
    try:
        return parse_readable_file(value)
    except ValueError:
        path = Path(values.parse_text(str(value) if isinstance(value, Path) else value))
        if path.exists() or path.is_symlink():
            raise
        return path


def parse_state_folder(value: Any) -> Path:
    """Return the absolute path of a directory, which need not be there."""
    path = Path(values.parse_text(str(value) if isinstance(value, Path) else value))
    if not path.is_absolute():
        raise ValueError(
            f"{values.shown(str(path))} is not absolute; use /var/lib/modelarts-gateway"
        )
    if path.exists() and not path.is_dir():
        raise ValueError(f"{values.shown(str(path))}: not a directory; name the one above it")
    return path


def parse_service_url(value: Any) -> str:
    """Return a URL in its one normal form."""
    return str(addresses.parse_url(value))


def parse_proxy_url(value: Any) -> str:
    """Return the URL of a proxy, which is a host and a port alone."""
    url = addresses.parse_url(value)
    if url.scheme != "http" or url.path:
        raise ValueError(f"{values.shown(value)} is not a proxy; use http://host:port")
    return str(url)


def parse_secret(value: Any) -> SecretStr:
    """Take a secret without ever repeating it."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if not isinstance(value, str) or not value:
        raise ValueError("not a text, or empty (not shown); give the secret itself")
    return SecretStr(value)


def _text_schema(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": [*examples]})


def _amount_schema(pattern: str, number: str, *examples: str, **limit: float) -> WithJsonSchema:
    text = {"type": "string", "pattern": f"^{pattern}$", "examples": [*examples]}
    return WithJsonSchema({"anyOf": [text, {"type": number, **limit}]})


Name = Annotated[str, BeforeValidator(values.parse_name), _text_schema(values.NAME_PATTERN, "iris")]
Text = Annotated[
    str, BeforeValidator(values.parse_text), WithJsonSchema({"type": "string", "minLength": 1})
]
Segment = Annotated[
    str, BeforeValidator(values.parse_segment), _text_schema("[A-Za-z0-9._~-]+", "cce")
]
FieldName = Annotated[
    str,
    BeforeValidator(values.parse_field_name),
    _text_schema(r"[!#$%&'*+.^`|~0-9A-Za-z-]+", "X-Apig-AppCode"),
]
FieldPrefix = Annotated[
    str, BeforeValidator(values.parse_field_prefix), _text_schema("[ -~]*", "Bearer ")
]
Instant = Annotated[
    datetime,
    BeforeValidator(values.parse_instant),
    _text_schema(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].+)?", "2027-01-31", "2027-01-31T12:00:00+08:00"),
]
Duration = Annotated[
    float,
    BeforeValidator(values.parse_duration),
    _amount_schema(values.DURATION_PATTERN, "number", "40s", "1.5h", minimum=0),
]
PositiveDuration = Annotated[
    float,
    BeforeValidator(values.parse_positive_duration),
    _amount_schema(values.DURATION_PATTERN, "number", "40s", "1.5h", exclusiveMinimum=0),
]
Count = Annotated[
    int,
    BeforeValidator(values.parse_count),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": values.MOST}),
]
Share = Annotated[
    float,
    BeforeValidator(values.parse_share),
    _amount_schema(values.SHARE_PATTERN, "number", "20%", minimum=0, maximum=1),
]
MaxInFlight = Annotated[
    int | Literal["auto"],
    BeforeValidator(values.parse_max_in_flight),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [values.AUTO]},
                {"type": "integer", "minimum": 1, "maximum": values.MOST},
            ]
        }
    ),
]
ConnectionCount = Annotated[
    int,
    BeforeValidator(values.parse_connections),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": values.MOST}),
]
MemorySize = Annotated[
    int | Literal["auto"],
    BeforeValidator(values.parse_memory),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [values.AUTO]},
                {"type": "integer", "minimum": values.LEAST_MEMORY},
                {"type": "string", "pattern": values.SIZE_PATTERN, "examples": ["64MiB"]},
            ]
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(values.parse_size),
    _amount_schema(values.SIZE_PATTERN, "integer", "12MiB", minimum=0),
]
ReadableFile = Annotated[
    Path, BeforeValidator(parse_readable_file), WithJsonSchema({"type": "string", "minLength": 1})
]
StateFolder = Annotated[
    Path, BeforeValidator(parse_state_folder), WithJsonSchema({"type": "string", "pattern": "^/"})
]
OptionalFile = Annotated[
    Path, BeforeValidator(parse_optional_file), WithJsonSchema({"type": "string", "minLength": 1})
]
Secret = Annotated[SecretStr, BeforeValidator(parse_secret)]
HostName = Annotated[
    str, BeforeValidator(addresses.parse_host_name), WithJsonSchema({"type": "string"})
]
AllowedHost = Annotated[
    str, BeforeValidator(addresses.parse_allowed_host), WithJsonSchema({"type": "string"})
]
Origin = Annotated[
    str,
    BeforeValidator(addresses.parse_origin),
    _text_schema(r"https?://[^/]+", "https://app.example"),
]
Method = Annotated[
    str, BeforeValidator(values.parse_method), WithJsonSchema({"enum": list(values.METHODS)})
]
Listen = Annotated[
    ListenAddress,
    BeforeValidator(addresses.parse_listen),
    PlainSerializer(str),
    _text_schema(r"(unix:/.+|.+:[0-9]{1,5})", "127.0.0.1:8080", "unix:/run/gateway/gateway.sock"),
]
Mode = Annotated[
    str, BeforeValidator(values.parse_mode), _text_schema("0?[0-7]{3}", "0660", "0600")
]
ListenTcp = Annotated[
    ListenAddress,
    BeforeValidator(addresses.parse_listen_tcp),
    PlainSerializer(str),
    _text_schema(r".+:[0-9]{1,5}", "127.0.0.1:9090"),
]
TokenListen = Annotated[
    ListenAddress,
    BeforeValidator(addresses.parse_token_listen),
    PlainSerializer(str),
    _text_schema(r"(unix:/.+|.+:[0-9]{1,5})", "unix:/run/gateway/token.sock", "127.0.0.1:9095"),
]
ServiceUrl = Annotated[
    str,
    BeforeValidator(parse_service_url),
    _text_schema(
        r"https?://[^/?#@]+(/[^?#]*)?", "https://modelarts-infers-1.example/v1/infers/<id>"
    ),
]
ProxyUrl = Annotated[
    str,
    BeforeValidator(parse_proxy_url),
    _text_schema(r"http://[^/?#@]+/?", "http://proxy.internal:3128"),
]
AuthUrl = Annotated[
    str,
    BeforeValidator(addresses.parse_auth_url),
    _text_schema(r"https?://[^/?#@]+(/[^?#]*)?", "https://iam.ap-southeast-1.myhuaweicloud.com/v3"),
]
