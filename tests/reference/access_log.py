"""The reference of the access log, made from a line that it writes and the fields' docstrings."""

import ast
import json
import os
from importlib.resources import files

from gateway.observe.access_log import AccessLog, Record
from tests.support.records import record_of

_HEAD = """\
# Access log

<!-- Made by `python -m tests.documents` from gateway/observe/access_log.py; edit there. -->

One line of JSON on standard output for each request, when it has ended. Lines never hold a token, a
body, a path or a query. Lines that cannot be written are counted in
`gateway_access_log_lost_lines_total`. The fields, in their order:

| field | type | unit | meaning |
|---|---|---|---|
{rows}

For example:

```json
{line}
```
"""

_UNITS = {"_us": "microseconds", "_bytes": "bytes"}


def document() -> str:
    """Return config/access-log.md."""
    record = record_of(
        request_id="01JDXV5W3M7C0000000000000A",
        service="iris",
        method="POST",
        status=200,
        duration_s=0.0123,
        connect_s=0.0008,
        first_byte_s=0.011,
        first_chunk_s=0.011,
        overhead_s=0.0002,
        request_bytes=91,
        response_bytes=127,
        upstream_request_id="5f3a1c",
    )
    line = _written(record)
    return _HEAD.format(
        rows="\n".join(_row(key, value) for key, value in json.loads(line).items()), line=line
    )


def _written(record: Record) -> str:
    reader, writer = os.pipe()
    try:
        AccessLog(writer).write([record], now=0.0, wall_now=1767225600.0)
        return os.read(reader, 4096).decode().strip()
    finally:
        os.close(reader)
        os.close(writer)


def _row(key: str, value: object) -> str:
    field = "ended_at" if key == "time" else key.replace("_us", "_s")
    kind = "number" if isinstance(value, int) else "text"
    unit = next((unit for end, unit in _UNITS.items() if key.endswith(end)), "")
    return f"| `{key}` | {kind} | {unit} | {_MEANINGS[field]} |"


def _meanings() -> dict[str, str]:
    """Return the docstring of each field of `Record`; a compiled class does not know its source."""
    module = ast.parse(files("gateway.observe").joinpath("access_log.py").read_text())
    [definition] = [
        one for one in module.body if isinstance(one, ast.ClassDef) and one.name == Record.__name__
    ]
    found = {}
    for field, said in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(said, ast.Expr)
            and isinstance(said.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(said.value.value).split())
    return found


_MEANINGS = _meanings()
