"""Limits, queues, breakers and retries as somebody configures them, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from gateway.assembly.services import build_limits
from gateway.errors import ConfigError
from gateway.proxy.gate import Limits
from gateway.proxy.replay import Retry
from gateway.settings import Loaded, load

URL = "https://models.example/v1/infers/a"


def loaded(**keys: Any) -> Loaded:
    """The settings of a service with these keys."""
    flags = {
        "services": {"iris": {"url": URL, **keys}},
        "identities": {"default": {"method": "none"}},
    }
    return load(file=None, environ={}, flags=flags)


def limits_of(**keys: Any) -> Limits | None:
    """What the gateway makes of these keys of a service."""
    return build_limits(loaded(**keys).settings.services["iris"])


def problem_of(**keys: Any) -> str:
    """The only problem of a service with these keys."""
    with pytest.raises(ConfigError) as caught:
        loaded(**keys)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"max_in_flight": 1000},
        {"max_in_flight": 1000, "queue": {"wait": "2s"}},
        {"breaker": {"failures": 0}, "retry": {"on": []}},
    ],
)
def test_without_limits_nothing_is_built(keys: dict[str, Any]) -> None:
    """
    The default is as before: 1000 at a time, no queue, and nothing on the way of a request.
    """
    assert limits_of(**keys) is None


def test_max_in_flight_brings_a_queue() -> None:
    """
    Ten times as deep, a second long, unless somebody says otherwise.
    """
    plain = limits_of(max_in_flight=16)
    assert plain is not None
    assert (plain.max_in_flight, plain.queue_depth, plain.queue_wait_s) == (16, None, 1.0)
    given = limits_of(max_in_flight="auto", queue={"depth": "160", "wait": "2s"})
    assert given is not None
    assert (given.max_in_flight, given.queue_depth, given.queue_wait_s) == (None, 160, 2.0)
    off = limits_of(max_in_flight="4", queue={"depth": 0})
    assert off is not None
    assert (off.max_in_flight, off.queue_depth) == (4, 0)


def test_breaker_and_retry_need_no_limit() -> None:
    """
    They come without a queue then, since nobody has said where it begins.
    """
    limits = limits_of(
        breaker={"failures": 5, "open": "3s"},
        retry={"on": "throttled,unavailable", "budget": "50%", "wait": "100ms"},
    )

    assert limits is not None
    assert (limits.max_in_flight, limits.queue_depth) == (1000, 0)
    assert (limits.breaker_failures, limits.breaker_open_s) == (5, 3.0)
    assert limits.retry_on == {Retry.THROTTLED, Retry.UNAVAILABLE}
    assert (limits.retry_share, limits.retry_wait_s) == (0.5, 0.1)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"queue": {"depth": 100}},
            (
                "services.iris.queue: max_in_flight is not given, so nothing would wait; set it to "
                "what the service can take at a time, or to auto"
            ),
        ),
        (
            {"max_in_flight": 4, "queue": {"depth": "unlimited"}},
            "services.iris.queue.depth: 'unlimited' is not a number of requests; use 0 to 100000",
        ),
        (
            {"max_in_flight": 4, "queue": {"depth": 100_001}},
            "services.iris.queue.depth: 100001 is not a number of requests; use 0 to 100000",
        ),
        (
            {"max_in_flight": 0},
            (
                "services.iris.max_in_flight: 0 is not a limit; use 1 to 100000, what the "
                "service can "
                "take at a time, or auto"
            ),
        ),
        (
            {"max_in_flight": "atuo"},
            (
                "services.iris.max_in_flight: 'atuo' is not a limit; use 1 to 100000, what the "
                "service "
                "can take at a time, or auto, did you mean auto?"
            ),
        ),
        (
            {"breaker": {"open": "10s"}},
            "services.iris.breaker.failures: required with open; such as 5 failures in a row",
        ),
        (
            {"retry": {"budget": "20%"}},
            (
                "services.iris.retry.on: required with the other keys; use [throttled], "
                "[unavailable] "
                "or both"
            ),
        ),
        (
            {"retry": {"on": ["throttled"], "budget": "120%"}},
            "services.iris.retry.budget: '120%' is not a share; use 0% to 100%, such as 20%",
        ),
        (
            {"retry": {"on": ["throttled"]}, "replay_buffer": 0},
            (
                "services.iris.retry: replay_buffer is 0, so no body is kept that could be "
                "sent again; "
                "set it to the size of most bodies, such as 1MiB, or leave retry out"
            ),
        ),
    ],
)
def test_what_cannot_work_is_refused(keys: dict[str, Any], problem: str) -> None:
    """
    With the reason, and what to write instead.
    """
    assert problem_of(**keys) == problem


def test_reasons_for_a_retry_are_named() -> None:
    """
    A reason that does not exist is refused by its place in the list.
    """
    assert problem_of(retry={"on": ["timeout"]}) == (
        "services.iris.retry.on[0]: 'timeout' is not one of throttled, unavailable"
    )


def test_queue_that_outlasts_its_callers_is_warned_about() -> None:
    """
    Both sides of 10 s, and only where there is a queue.
    """
    (warning,) = loaded(max_in_flight=4, queue={"wait": "11s"}).warnings
    assert warning == (
        "services.iris.queue.wait: 11s is longer than many callers wait, so requests would be "
        "served whose callers have given up; use 10s or less, and give callers a longer timeout "
        "than that"
    )
    assert loaded(max_in_flight=4, queue={"wait": "10s"}).warnings == ()
    assert loaded(max_in_flight=4, queue={"wait": "11s", "depth": 0}).warnings == ()


@pytest.mark.parametrize("key", ["on", '"on"'])
def test_key_on_needs_no_quotes(key: str, tmp_path: Path) -> None:
    """
    YAML 1.1 takes it for `true`, which nobody means here.
    """
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "identities: {default: {method: none}}\n"
        f"services: {{iris: {{url: '{URL}', retry: {{{key}: [throttled, unavailable]}}}}}}\n"
    )
    retry = load(file=file, environ={}).settings.services["iris"].retry

    assert retry.on == ("throttled", "unavailable")


def test_environment_sets_limits() -> None:
    """
    By the path of each key.
    """
    environ = {
        "GATEWAY_SERVICE_URL": URL,
        "GATEWAY_SERVICES__DEFAULT__MAX_IN_FLIGHT": "auto",
        "GATEWAY_SERVICES__DEFAULT__QUEUE__DEPTH": "7",
        "GATEWAY_SERVICES__DEFAULT__RETRY__ON": "throttled",
        "GATEWAY_IDENTITIES__DEFAULT__METHOD": "none",
    }
    service = load(file=None, environ=environ, flags={}).settings.services["default"]

    assert (service.max_in_flight, service.queue.depth) == ("auto", 7)
    assert service.retry.on == ("throttled",)
