"""The bar chart `latest.svg`: CPU per request, a panel per shape. Pure: figures in, text out."""

from collections.abc import Mapping
from html import escape

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 } .note { fill: #57606a; font-size: 12px }
  .it { fill: #afb8c1 } .gateway { fill: #0969da } .page { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9198a1 } .it { fill: #59636e } .gateway { fill: #4493f8 }
    .page { fill: #0d1117 }
  }"""
_WIDTH, _LEFT, _LONGEST, _BAR, _STEP, _GAP = 720, 110, 500, 16, 22, 46


def bars(panels: Mapping[str, Mapping[str, float]], caption: str) -> str:
    """Return an SVG document.

    `panels`: title → contestant → µs of CPU per request, each panel on a scale of its own.
    Light or dark as the reader's system asks, on a background of its own.
    """
    parts = []
    top = 24
    for title, found in panels.items():
        parts.append(f'<text class="title" x="0" y="{top}">{escape(title)}</text>')
        scale = _LONGEST / max(found.values(), default=1)
        for at, (name, value) in enumerate(sorted(found.items(), key=lambda pair: pair[1])):
            y = top + 10 + at * _STEP
            kind = "gateway" if name in {"compiled", "interpreted"} else "it"
            width = max(1.0, value * scale)
            parts.append(
                f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
                f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}"'
                f' rx="2"/><text x="{_LEFT + width + 6:.1f}" y="{y + 13}">{value:.0f} µs</text>'
            )
        top += len(found) * _STEP + _GAP
    parts.append(f'<text class="note" x="0" y="{top - 10}">{escape(caption)}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -8 {_WIDTH + 32} {top + 16}"'
        f' role="img" aria-label="CPU time per request">\n<style>{_STYLE}\n</style>\n'
        f'<rect class="page" x="-16" y="-8" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )
