"""How often an identity writes to the log."""

import logging

import pytest

from gateway.identity.credential import Credential
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.report import LoginLog
from gateway.identity.source import Login, LoginError, TokenFacts

LOGIN = Login(Credential(b"", 10.0, 20.0), "key", TokenFacts(5, "01234567"))


def test_same_result_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Up to the minute not again, from it on again; another result at once."""
    caplog.set_level(logging.INFO)
    log = LoginLog("default")
    lines = []
    for now in (0.0, 59.9, 60.0):
        log.succeeded(RefreshTrigger.SCHEDULE, LOGIN, now=now)
        lines.append(len(caplog.records))
    error = LoginError(RefreshResult.NETWORK, "why")
    for now in (60.1, 60.2):
        log.failed(RefreshTrigger.SCHEDULE, error, now=now, next_s=1.0, usable=True)
        lines.append(len(caplog.records))
    assert lines == [1, 1, 2, 3, 3]
    assert caplog.messages[2] == (
        "identity default: login failed (schedule): network: why; next login in 1.0 s; "
        "the credential there is stays in use"
    )


def test_method_none_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to say about no token."""
    caplog.set_level(logging.INFO)
    LoginLog("none").succeeded(RefreshTrigger.STARTUP, Login(LOGIN.credential, "key"), now=0.0)
    assert caplog.records == []


def test_a_record_does_not_keep_the_error(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that keeps records would keep its frames, IAM's response and token with them."""
    error = LoginError(RefreshResult.BAD_REPLY, "why")
    LoginLog("default").failed(RefreshTrigger.STARTUP, error, now=0.0, next_s=1.0, usable=False)
    [record] = caplog.records
    assert isinstance(record.args, tuple)
    assert error not in record.args
