"""What replicas share."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.settings.given import GOOD, problems_of, use


def with_fleet(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    """Return settings with a fleet; its files exist."""
    (tmp_path / "key").write_text("x")
    (tmp_path / "password").write_text("x")
    return GOOD | {"fleet": {"key_file": str(tmp_path / "key"), **keys}}


@pytest.mark.parametrize(
    ("url", "shown_as"),
    [
        ("rediss://redis.internal", "rediss://redis.internal:6379/0"),
        ("rediss://redis.internal:6380/3", "rediss://redis.internal:6380/3"),
        ("redis://127.0.0.1:7/", "redis://127.0.0.1:7/0"),
        ("redis://[::1]:7/2", "redis://[::1]:7/2"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=0"),
        ("unix:///run/redis.sock?db=4", "unix:///run/redis.sock?db=4"),
    ],
)
def test_a_fleet_names_one_redis(tmp_path: Path, url: str, shown_as: str) -> None:
    """By TLS, or on this machine."""
    loaded = use(with_fleet(tmp_path, url=url))

    assert loaded.settings.fleet is not None
    assert str(loaded.settings.fleet.url) == shown_as
    assert loaded.settings.fleet.prefix == "gw:"
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://redis.internal:6379", "to another machine shows the password"),
        ("redis+sentinel://a:1,b:2/primary", "Sentinel and Cluster are not supported"),
        ("rediss-cluster://hunter2@a:1", "Sentinel and Cluster are not supported"),
        ("rediss://a:1,b:2", "Sentinel and Cluster are not supported"),
        ("http://hunter2@redis", "not the URL of a Redis"),
        ("rediss://:hunter2@redis:99999", "not the URL of a Redis"),
        ("rediss://redis/zero", "not the URL of a Redis"),
        ("rediss://redis/0?password=hunter2", "not the URL of a Redis"),
    ],
)
def test_other_urls_are_refused_unseen(tmp_path: Path, url: str, problem: str) -> None:
    """With a sentence, and never with what may be a password."""
    (found,) = problems_of(with_fleet(tmp_path, url=url))

    assert found.startswith("fleet.url: ")
    assert problem in found
    assert "hunter2" not in found


def test_a_password_in_the_url_is_warned_about_and_never_shown(tmp_path: Path) -> None:
    """Nor is the user's name."""
    loaded = use(with_fleet(tmp_path, url="rediss://ann:hunter2@redis.internal"))

    (warning,) = loaded.warnings
    assert warning.startswith("fleet.url: holds a password")
    assert "hunter2" not in warning + str(loaded.settings) + str(loaded.settings.model_dump())
    twice = with_fleet(
        tmp_path, url="rediss://:hunter2@r", password_file=str(tmp_path / "password")
    )
    (problem,) = problems_of(twice)
    assert problem.startswith("fleet.password_file: the URL holds a password too")


def test_tls_is_for_rediss_alone(tmp_path: Path) -> None:
    """Elsewhere it would have no effect."""
    (problem,) = problems_of(with_fleet(tmp_path, url="redis://localhost", tls={"verify": False}))

    assert problem.startswith("fleet.tls: makes sense with rediss:// only")
