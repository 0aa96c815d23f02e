"""Whatever IAM sends, it is understood or disbelieved; nothing else ever comes out."""

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.answer import Answer, AskedProject, failure_of, grant_of, instant_of_date
from gateway.identity.refresh import LONGEST_LIFE_S, RefreshResult
from gateway.identity.source import LoginError
from tests.support.fake_iam import token_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=10,
)
FIELDS = ["issued_at", "expires_at", "user", "project", "roles"]


def answer(status: int, body: bytes, *values: str | None) -> Answer:
    date, retry_after, trace = values or (None, None, None)
    return Answer(status, ("token",), date, retry_after, trace, body)


@given(field=st.sampled_from(FIELDS), value=JSON, cut=st.integers(0, 400))
def test_spoilt_token_body_grants_within_bounds_or_is_disbelieved(
    field: str, value: object, cut: int
) -> None:
    """One field replaced by anything, or the body cut anywhere."""
    whole = token_body()
    spoilt = json.loads(whole)
    spoilt["token"][field] = value
    for body in (json.dumps(spoilt).encode(), whole[:cut]):
        with contextlib.suppress(LoginError):
            grant = grant_of(answer(201, body), AskedProject(), wall_now=0.0)
            assert 0 < grant.life_s <= LONGEST_LIFE_S


@given(
    tokens=st.lists(
        st.text(max_size=8) | st.sampled_from(["token", "", "a b", "a\r\nX: y"]), max_size=3
    ),
    date=st.none() | st.text(max_size=40) | st.just("Sun, 06 Nov 1994 08:49:37 GMT"),
    wall_now=st.floats(0, 4e9),
    asked=st.builds(AskedProject, *[st.none() | st.text(max_size=5)] * 3),
)
def test_a_granted_line_is_one_header_line(
    tokens: list[str], date: str | None, wall_now: float, asked: AskedProject
) -> None:
    """Whatever IAM calls a token, nothing that could begin another field is ever sent."""
    with contextlib.suppress(LoginError):
        said = Answer(201, tuple(tokens), date, None, None, token_body())
        grant = grant_of(said, asked, wall_now=wall_now)
        [token] = tokens
        assert grant.line == b"X-Auth-Token: " + token.encode("ascii") + b"\r\n"
        assert re.fullmatch(rb"X-Auth-Token: [!-~]+\r\n", grant.line)
        assert 0 < grant.life_s <= LONGEST_LIFE_S


@given(
    status=st.integers(200, 599),
    body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
    date=st.none() | st.text(max_size=40),
    retry_after=st.none() | st.text(max_size=40),
    trace=st.none() | st.text(max_size=60),
)
def test_every_failure_has_a_short_printable_sentence(
    status: int, body: bytes, date: str | None, retry_after: str | None, trace: str | None
) -> None:
    """One log line, never a success, and refused exactly for 400, 401 and 403."""
    error = failure_of(answer(status, body, date, retry_after, trace), wall_now=0.0)
    assert str(error).isascii()
    assert str(error).isprintable()
    assert len(str(error)) < 300
    assert error.result is not RefreshResult.OK
    assert (error.result is RefreshResult.REFUSED) == (status in {400, 401, 403})


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("The username or password is wrong.", "check the secret, then username and user_domain"),
        ("Could not find domain: canary.", "check user_domain and project_domain"),
        ("Could not find project: canary in domain x.", "check project or project_id"),
        ("The request you have made requires authentication.", "check username, user_domain, the"),
    ],
)
@pytest.mark.parametrize("shape", ['{"error": {"message": "%s"}}', '{"error_msg": "%s"}'])
def test_refusal_names_what_iam_hints_at(shape: str, message: str, remedy: str) -> None:
    """By words of its message, of which nothing is repeated."""
    error = failure_of(answer(401, (shape % message).encode()), wall_now=0.0)
    assert remedy in str(error)
    assert "canary" not in str(error)


@given(st.text(max_size=60))
def test_any_date_is_read_or_ignored(value: str) -> None:
    """Never an exception."""
    assert instant_of_date(value) is None


def test_http_date_is_read() -> None:
    """The example of RFC 9110 section 5.6.7."""
    assert instant_of_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777.0


def test_an_answer_does_not_show_what_iam_said() -> None:
    """Any field may quote the password that it was sent."""
    assert repr(answer(403, b"secret", "secret", "secret", "secret")) == "Answer(status=403)"
