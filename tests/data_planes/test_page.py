"""The page that says which data path to choose, with the figures of `make bench-planes`."""

import json
from pathlib import Path
from typing import Any

from tests.programs.bench import planes, summary

MACHINE = {"cpu": "Some CPU", "cores": 2, "load_average_before": 0.1}
ABOUT = {"date": "2026-01-02", "machine": MACHINE, "build": "compiled", "rounds": 3, "seconds": 5}


def results(folder: Path, **parts: dict[str, Any]) -> Path:
    """Write a file of results."""
    file = folder / "planes.json"
    file.write_text(json.dumps({name: ABOUT | part for name, part in parts.items()}))
    return file


def callers(cpu_us: float, alone_ms: float) -> dict[str, float]:
    return {"cpu_us": cpu_us, "alone_p50_ms": alone_ms}


TLS = {
    "listeners": {
        name: {
            "real": {
                "plain": callers(40, 0.25),
                "tls": callers(60, 0.3),
                "ratio": callers(ratio, 1.2),
            },
            "close": {"plain": callers(100, 0.5), "tls": callers(700, 2.0), "ratio": callers(7, 4)},
        }
        for name, ratio in (("gateway", 1.5), ("envoy", 1.4), ("nginx", 1.3))
    }
}
ASKED = {"cpu_us": 31.26, "rate": 21987.6, "alone_p50_ms": 0.0612}
ASKS = {"ways": {way: {"kept": ASKED, "close": ASKED} for way in ("unix", "tcp")}}


def test_figures_stand_on_the_page_and_nothing_else_changes(tmp_path: Path) -> None:
    """Without results it is as it is; a team that was not measured has no row."""
    before = planes.PAGE.read_text()
    assert planes.page(tmp_path / "none.json") == before
    figures = {"cpu_us": 12.34, "rate": 5678.9, "p50_ms": 0.456, "rss_mib": 78.9}

    made = planes.page(results(tmp_path, planes={"teams": {"envoy-sink": figures}}))

    assert "| Envoy, with our sink | 12.3 | 5679 | 0.46 | 79 |" in made
    assert "nginx with two workers, a fixed token" not in made
    assert "the gateway compiled; medians of 3 rounds" in made
    begin = planes.BEGIN.format("planes")
    head, _, rest = before.partition(begin)
    _, end, tail = rest.partition("<!-- to here -->")
    assert made.startswith(head + begin)
    assert made.endswith(end + tail)


def test_callers_over_tls_stand_beside_those_on_loopback(tmp_path: Path) -> None:
    """With the ratio, for connections that stay open and for a handshake each."""
    made = planes.page(results(tmp_path, listen_tls=TLS))

    kept, closed = "connections stay open", "a connection for each request, so a handshake"
    for who, kind, figures in (
        ("the gateway, `listen_tls`", kept, "40.0 | 60.0 | 1.50 | 0.25 | 0.30 | 1.20"),
        ("the gateway, `listen_tls`", closed, "100.0 | 700.0 | 7.00 | 0.50 | 2.00 | 4.00"),
        ("nginx", kept, "40.0 | 60.0 | 1.30 | 0.25 | 0.30 | 1.20"),
    ):
        assert f"| {who} | {kind} | {figures} |" in made


def test_asks_stand_on_the_page(tmp_path: Path) -> None:
    """With what those that the endpoint is made for would take of a core."""
    made = planes.page(results(tmp_path, token_endpoint=ASKS))

    assert "| a Unix socket | kept open | 21988 | 31.3 | 16 | 0.061 |" in made
    assert "| TCP | one for each ask | 21988 | 31.3 | 16 | 0.061 |" in made


def test_the_readme_says_both_prices(tmp_path: Path) -> None:
    """In a sentence each; none of what was not measured."""
    assert planes.prices(tmp_path / "none.json") == ""

    made = " ".join(planes.prices(results(tmp_path, listen_tls=TLS, token_endpoint=ASKS)).split())

    assert "1.50 times the CPU of callers on loopback" in made
    assert "7.00 times with a handshake for each request (Envoy 1.40 and 7.00, nginx 1.30" in made
    assert "31 µs over its Unix socket (21988 asks/s) and 31 µs over TCP" in made


def test_a_figure_without_its_place_is_noticed() -> None:
    """So that no table vanishes from the page unseen."""
    for name in planes.PARTS:
        assert planes.BEGIN.format(name) in planes.PAGE.read_text()
    assert planes.BEGIN.format("prices") in summary.README.read_text()
