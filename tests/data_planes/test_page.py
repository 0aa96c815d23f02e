"""The page that says which data path to choose, with the figures of `make bench-planes`."""

import json
from pathlib import Path

from tests.programs.bench import planes


def test_figures_stand_on_the_page_and_nothing_else_changes(tmp_path: Path) -> None:
    """Without results it is as it is; a team that was not measured has no row."""
    before = planes.PAGE.read_text()
    assert planes.page(tmp_path / "none.json") == before
    figures = {"cpu_us": 12.34, "rate": 5678.9, "p50_ms": 0.456, "rss_mib": 78.9}
    machine = {"cpu": "Some CPU", "cores": 2, "load_average_before": 0.1}
    result = {"date": "2026-01-02", "machine": machine, "build": "compiled", "rounds": 3}
    file = tmp_path / "planes.json"
    file.write_text(json.dumps(result | {"seconds": 5, "teams": {"envoy-sink": figures}}))

    made = planes.page(file)

    assert "| Envoy, with our sink | 12.3 | 5679 | 0.46 | 79 |" in made
    assert "nginx with two workers, a fixed token" not in made
    assert "the gateway compiled; medians of 3 rounds" in made
    head, tail = before.split(planes.BEGIN)[0], before.split(planes.END)[1]
    assert made.startswith(head)
    assert made.endswith(tail)
