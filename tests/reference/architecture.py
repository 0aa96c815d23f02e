"""The picture of the architecture in the README."""

from collections.abc import Iterator

_WIDTH, _HEIGHT = 860, 300

_STYLE = """\
text{font:14px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2933;text-anchor:middle}
.small{font-size:12px;fill:#52606d}.code{font-family:ui-monospace,Menlo,Consolas,monospace}
.title{font-weight:600;font-size:14px}.line{stroke:#52606d;stroke-width:1.6;fill:none}
.box{fill:#f5f7fa;stroke:#9aa5b1}.ours{fill:#e3f2fd;stroke:#1e70bf;stroke-width:2}
.host{fill:none;stroke:#9aa5b1;stroke-dasharray:5 4}.tip{fill:#52606d}
@media (prefers-color-scheme:dark){text{fill:#e4e7eb}.small{fill:#9aa5b1}
.box{fill:#262c33;stroke:#616e7c}.ours{fill:#12304d;stroke:#5aa9e6}
.line{stroke:#9aa5b1}.tip{fill:#9aa5b1}.host{stroke:#616e7c}}"""


def picture() -> str:
    """Return the SVG: who talks to whom, and with what."""
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
                f'width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-labelledby="title">'
            ),
            (
                '<title id="title">Your application calls the gateway on loopback without a '
                "credential. The gateway logs in at IAM once, adds the token to each request and "
                "forwards it to the inference service. Prometheus reads its metrics.</title>"
            ),
            f"<style>{_STYLE}</style>",
            (
                '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
                'markerHeight="8" orient="auto-start-reverse">'
                '<path class="tip" d="M0 0 10 5 0 10z"/></marker></defs>'
            ),
            *_parts(),
            "</svg>\n",
        ]
    )


def _parts() -> Iterator[str]:
    yield '<rect class="host" x="10" y="76" width="510" height="152" rx="12"/>'
    yield _text(78, 98, "pod or host", "small")
    yield from _box(24, 122, 140, "box", "Your application", "no credential")
    yield from _box(330, 122, 170, "ours", "modelarts-gateway", "caches and refreshes")
    yield from _box(690, 122, 150, "box", "Inference service", "ModelArts and others")
    yield from _box(690, 10, 150, "box", "IAM / Keystone", "issues tokens")
    yield from _box(340, 242, 150, "box", "Prometheus", "probes, /status", height=50)

    yield from _arrow(164, 152, 328, 152)
    yield _text(246, 142, "http://127.0.0.1:8080", "small code")
    yield _text(246, 172, "plain HTTP", "small")
    yield from _arrow(500, 152, 688, 152)
    yield _text(605, 142, "+ X-Auth-Token", "small code")
    yield _text(605, 172, "TLS, verified", "small")
    yield from _arrow(470, 120, 688, 44)
    yield _text(545, 62, "one login, ahead of expiry", "small")
    yield from _arrow(415, 240, 415, 190)
    yield _text(468, 214, ":9090/metrics", "small code")


def _box(  # noqa: PLR0917  # as in the picture: where, how, and the two lines in it
    x: int, y: int, width: int, kind: str, title: str, said: str, *, height: int = 64
) -> Iterator[str]:
    yield f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'
    yield _text(x + width // 2, y + height // 2 - 4, title, "title")
    yield _text(x + width // 2, y + height // 2 + 16, said, "small")


def _text(x: int, y: int, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{words}</text>'


def _arrow(x: int, y: int, to_x: int, to_y: int) -> Iterator[str]:
    yield f'<path class="line" d="M{x} {y} {to_x} {to_y}" marker-end="url(#tip)"/>'
