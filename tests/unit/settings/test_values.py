"""Durations, sizes, names and texts, both sides of each limit."""

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings import (
    values,
)
from tests.unit.settings.given import ANONYMOUS, GOOD, URL, problems_of, service, use


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("40s", 40),
        ("5m", 300),
        ("1.5h", 5400),
        ("1d", 86400),
        ("7", 7),
        (7, 7),
        (0.5, 0.5),
        (0, 0),
        ("0s", 0),
        (" 2 s ", 2),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    """Seconds, or a number with a unit."""
    assert values.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1s",
        -1,
        -0.001,
        True,
        None,
        "1w",
        "1 h 5 m",
        "1e3",
        "٣s",
        float("inf"),
        float("nan"),
        "9" * 400,
        10**400,
        [],
        "4,5s",
    ],
)
def test_what_is_no_duration(text: Any) -> None:
    """Negative, infinite and unknown forms are refused with what is allowed."""
    with pytest.raises(ValueError, match=r"is not a duration; use seconds, or a number with ms"):
        values.parse_duration(text)


def test_timeouts_are_above_zero() -> None:
    """A wait of 0 would fail every request; of 1 ms it is a choice."""
    assert (
        use(service(timeouts={"connect": "1ms"})).settings.services["iris"].timeouts.connect
        == 0.001
    )
    for key in ("connect", "first_byte", "first_chunk", "idle"):
        (problem,) = problems_of(service(timeouts={key: 0}))
        assert problem.startswith(f"services.iris.timeouts.{key}: 0 would end every request")


def test_the_whole_process_has_limits() -> None:
    """Callers are counted in whole numbers; what a body must keep may be nothing."""
    assert use(service()).settings.limits.connections == 4096
    assert use({**service(), "limits": {"connections": "8"}}).settings.limits.connections == 8
    for wrong in (0, -1, "many", 1.5, 100_001, True):
        (problem,) = problems_of({**service(), "limits": {"connections": wrong}})
        assert "is not a number of connections; use 1 to 100000" in problem
    for said, rate in (({}, 1024), ({"upload_rate": "2KiB"}, 2048), ({"upload_rate": 0}, 0)):
        found = use(service(timeouts=said)).settings.services["iris"].timeouts
        assert found.upload_rate == rate


def test_a_body_may_take_as_long_to_begin_as_a_response() -> None:
    """Unless it is said."""

    def timeouts(**given: Any) -> tuple[float, float]:
        found = use(service(timeouts=given)).settings.services["iris"].timeouts
        return found.first_byte, found.first_chunk

    assert timeouts() == (40, 40)
    assert timeouts(first_byte="90s") == (90, 90)
    assert timeouts(first_chunk="5m") == (40, 300)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12MiB", 12582912),
        ("1KiB", 1024),
        ("1GiB", 2**30),
        ("10MB", 10**7),
        ("500kB", 500_000),
        ("2GB", 2 * 10**9),
        ("1.5KiB", 1536),
        ("17", 17),
        ("17 B", 17),
        (17, 17),
        (0, 0),
    ],
)
def test_sizes(text: Any, size: int) -> None:
    """Bytes, or a number with a unit."""
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", -1, "-1", 1.5, True, None, "12mb", "12M", "1TiB", [], "9" * 400 + "MiB"]
)
def test_what_is_no_size(text: Any) -> None:
    """Negative, fractional and unknown forms are refused with what is allowed."""
    with pytest.raises(ValueError, match=r"is not a size; use bytes, or a number with kB"):
        values.parse_size(text)


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "a" * 63])
def test_names(name: str) -> None:
    """Names of services and identities."""
    assert set(
        use({"services": {name: {"url": URL}}, "identities": ANONYMOUS}).settings.services
    ) == {name}


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "_", "a.b", "a/b", "a" * 64, "ä", "a\n"])
def test_what_is_no_name(name: str) -> None:
    """Everything else is refused, with something near."""
    (problem,) = problems_of({"services": {name: {"url": URL}}, "identities": ANONYMOUS})

    assert "is not a name; use 1 to 63 of a-z 0-9 _ -" in problem


@pytest.mark.parametrize("text", ["", " ", "a\n", 5, True, 1.5, ["a"]])
def test_what_is_no_text(text: Any) -> None:
    """Numbers and dates that YAML sees in an unquoted text are not guessed at."""
    with pytest.raises(ValueError, match=r"not text|empty|control character"):
        values.parse_text(text)


def test_settings_never_change() -> None:
    """They are shared by everything that runs."""
    settings = use(GOOD).settings
    with pytest.raises(ValidationError):
        settings.quitquitquit = True  # type: ignore[misc]  # that is the test
