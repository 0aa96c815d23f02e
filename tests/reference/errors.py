"""The reference of errors: one page for each code, and an index of them all.

Status, type, layer and sentence come from `gateway.errors`; causes and remedies stand here.
"""

from gateway.errors import ErrorCode, Layer
from tests.reference.causes import PAGES

_MADE = "<!-- Made by `python -m tests.documents` from gateway/errors.py and tests/reference/. -->"

_INDEX = """\
# Errors

{made}

Every error of the gateway itself has a JSON body with `error_code`, `error_msg` and `request_id`.
Its `error_code` begins with `Gateway.` and is the name of a page here. Every other error comes from
the service, unchanged. `gateway_errors_total` counts both, by the layer that caused them.

| code | status | layer | what happened, and what to do |
|---|---|---|---|
{rows}
"""

_PAGE = """\
# {code}

{made}

{sentence}

| | |
|---|---|
| status | {status} |
| `Retry-After` | {retry_after} |
| `Proxy-Status` | `modelarts-gateway; error={proxy_error}` |
| metric | `gateway_errors_total{{layer="{layer}",error="{label}"}}` |
| whose fault | {whose} |

## Causes

{causes}

## What to do

{remedies}
"""

_WHOSE = {
    Layer.CLIENT: "the caller's",
    Layer.GATEWAY: "none, or the gateway's",
    Layer.IDENTITY: "the gateway's login, or IAM's",
    Layer.NETWORK: "the service's, or the network's",
}


def documents() -> dict[str, str]:
    """Return the text of each page by its path."""
    pages = {f"config/errors/Gateway.{code.value.name}.md": _page(code) for code in ErrorCode}
    return {"config/errors/README.md": _index(), **pages}


def _index() -> str:
    rows = [
        f"| [`Gateway.{code.value.name}`](Gateway.{code.value.name}.md) | {code.status or '-'} "
        f"| {code.layer} | {_summary(code)} |"
        for code in ErrorCode
    ]
    return _INDEX.format(made=_MADE, rows="\n".join(rows))


def _page(code: ErrorCode) -> str:
    page = PAGES[code]
    return _PAGE.format(
        code=f"Gateway.{code.value.name}",
        made=_MADE,
        sentence=_summary(code),
        status=code.status or "none: nobody is left to answer; the access log has status 0",
        retry_after="yes" if code.status == 503 else "no",
        proxy_error=code.value.proxy_error,
        layer=code.layer,
        label=code.label,
        whose=_WHOSE[code.layer],
        causes="\n".join(f"- {cause}" for cause in page.causes),
        remedies="\n".join(f"- {remedy}" for remedy in page.remedies),
    )


def _summary(code: ErrorCode) -> str:
    return code.value.summary.replace("<", "&lt;")
