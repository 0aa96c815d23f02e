"""Whatever is written, there are settings or problems in our words."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.settings import (
    Settings,
    addresses,
    types,
    values,
)
from gateway.settings.environment import leaf_keys, variable_names
from tests.unit.settings.given import problems_or_none

KEYS = st.sampled_from(sorted({part for path in leaf_keys(Settings) for part in path}))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.dates()
)


VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=2),
    st.dictionaries(st.one_of(KEYS, st.text(max_size=2), st.integers()), SCALARS, max_size=3),
)


NAMED = st.dictionaries(
    st.sampled_from(["default", "a", 5]), st.dictionaries(KEYS, VALUES, max_size=4), max_size=2
)


@given(data=st.dictionaries(KEYS, st.one_of(VALUES, NAMED), max_size=4), services=NAMED)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_data_is_settings_or_problems_in_our_words(
    data: dict[str, Any], services: dict[Any, Any]
) -> None:
    """No other exception, and no jargon of the library."""
    for problem in problems_or_none(data | {"services": services}, {}):
        assert ": " in problem
        assert "\n" not in problem
        assert not re.search(
            r"Input should|type=|pydantic|validation error|Traceback|not a value that", problem
        )


@example(environ={"GATEWAY_SERVICE_URL": "\n"})
@given(
    environ=st.dictionaries(
        st.sampled_from(list(variable_names())).map(lambda name: name.replace("<NAME>", "A")),
        st.text(),
        max_size=6,
    )
)
def test_any_environment_is_settings_or_problems(environ: dict[str, str]) -> None:
    """As above, for variables."""
    assert not any("\n" in problem for problem in problems_or_none({}, environ))


_PARSERS = [
    values.parse_name, values.parse_text, values.parse_duration, values.parse_positive_duration,
    values.parse_size, values.parse_method, addresses.parse_host_name, addresses.parse_allowed_host,
    addresses.parse_listen, addresses.parse_listen_tcp, addresses.parse_auth_url,
    types.parse_service_url,
]  # fmt: skip


_WRITTEN = st.lists(
    st.sampled_from(
        [
            "http", "https", "://", "HTTP://", "a", "B", "example", ".", "-", "_", "1", "80",
            "65536",
            ":", "[", "]", "::1", "127.0.0.1", "/", "/v3", "..", "%2e", "%41", "%", "@", "?", "#",
            " ",
            "\n", "\x00", "é", "s", "ms", "m", "1.5", "e9", "MiB", "kB", "unix:", "/run/x", "GET",
            "*",
        ]
    ),
    max_size=7,
).map("".join)  # fmt: skip


def _read(parse: Callable[[Any], Any], value: object) -> tuple[Any, str | None]:
    """Return what `value` is read as, or the sentence."""
    try:
        return parse(value), None
    except ValueError as error:
        return None, str(error)


@pytest.mark.parametrize("parse", _PARSERS, ids=lambda parse: parse.__name__)
@given(value=st.text(max_size=20) | _WRITTEN | VALUES)
def test_a_value_has_one_normal_form_or_a_sentence(
    parse: Callable[[Any], Any], value: object
) -> None:
    """No other exception; and what was read is read again as itself, also when written down."""
    parsed, problem = _read(parse, value)
    if problem is None:
        assert parse(parsed) == parsed
        if not isinstance(parsed, float):
            assert parse(parsed if isinstance(parsed, int) else str(parsed)) == parsed
    else:
        assert problem
        assert "\n" not in problem


@given(value=st.text(max_size=30) | VALUES)
def test_a_list_is_split_or_left_alone(value: object) -> None:
    """Texts become lists, other data is for the next to judge; a secret is never repeated."""
    parts, problem = _read(types.split_list, value)
    assert "JSON list" in problem if problem else parts is value or isinstance(parts, list)
    secret, problem = _read(types.parse_secret, value)
    assert "not shown" in problem if problem else secret.get_secret_value() == value
