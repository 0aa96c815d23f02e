"""Files for other data planes."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.settings.given import identity, problems_of, use


def with_sinks(*sinks: Any) -> dict[str, Any]:
    """Return settings of an identity that has a token and these sinks."""
    return identity(method="file", token_file="/dev/null", sinks=list(sinks))


def test_a_sink_has_safe_defaults() -> None:
    """Only its path is required."""
    (sink,) = use(with_sinks({"path": "/run/t"})).settings.identities["default"].sinks

    assert (sink.format, sink.name, sink.mode, sink.remove_on_exit) == (
        "plain",
        None,
        "0600",
        False,
    )


@pytest.mark.parametrize(
    ("sink", "problem"),
    [
        ({}, "sinks[0].path: required, but not given"),
        ({"path": "t"}, "sinks[0].path: 't' is not absolute; use /run/tokens/default.token"),
        ({"path": "/run"}, "sinks[0].path: '/run': a folder; name a file in it"),
        (
            {"path": "/run/t", "format": "envoy-sds"},
            (
                "sinks[0].format: 'envoy-sds' is not one of plain, envoy_sds, haproxy_map, "
                "did you mean envoy_sds?"
            ),
        ),
        (
            {"path": "/run/t", "format": "envoy_sds"},
            "sinks[0].path: '/run/t' does not end in .yaml, by which Envoy chooses its parser",
        ),
        (
            {"path": "/run/t", "name": "x"},
            "sinks[0].name: makes no sense with format plain; use envoy_sds or haproxy_map",
        ),
        (
            {"path": "/run/t", "format": "haproxy_map", "name": "a b"},
            "sinks[0].name: 'a b' cannot be a map's key; use one without space and #",
        ),
        (
            {"path": "/run/t", "mode": 600},
            (
                "sinks[0].mode: 600 is not a mode; use octal digits, such as '0660'; "
                "in YAML write it in quotes"
            ),
        ),
        (
            {"path": "/run/t", "removeOnExit": True},
            (
                "sinks[0].removeOnExit: unknown key, did you mean remove_on_exit? allowed: path, "
                "format, name, mode, remove_on_exit"
            ),
        ),
    ],
)
def test_a_sink_that_cannot_work_is_refused(sink: dict[str, Any], problem: str) -> None:
    """With its place in the list, and what is allowed."""
    (found,) = problems_of(with_sinks(sink))

    assert found.removesuffix(" [flag]") == f"identities.default.{problem}"


def test_two_sinks_cannot_share_a_file() -> None:
    """Each would undo what the other writes, of whatever identity they are."""
    data = with_sinks({"path": "/run/t"})
    data["identities"]["other"] = dict(data["identities"]["default"])

    (problem,) = problems_of(data)

    assert "'/run/t' is written by identities.default.sinks[0] too; use another file" in problem


def test_an_identity_without_a_token_has_no_sinks() -> None:
    """There would be nothing to write."""
    (problem,) = problems_of(identity(method="none", sinks=[{"path": "/run/t"}]))

    assert "sinks: makes no sense with method none" in problem


def test_a_sink_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    """Every process that can read the file has the token."""
    path = str(tmp_path / "t")

    assert use(with_sinks({"path": path, "mode": "0640"})).warnings == ()
    (warning,) = use(with_sinks({"path": path, "mode": "0644"})).warnings
    assert warning.startswith("identities.default.sinks[0].mode: 0644 lets every user")
    (warning,) = use(with_sinks({"path": str(tmp_path / "no" / "t")})).warnings
    assert "there is no folder" in warning
