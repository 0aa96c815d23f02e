"""What people see of an identity: its status at one instant, and its lines in the log."""

import logging
import math
from dataclasses import dataclass
from enum import StrEnum

from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.source import Login, LoginError, TokenFacts

_LOG = logging.getLogger("gateway.identity")
_LOG_AGAIN_S = 60.0


KEY_REFUSED = (
    "a service answers 401: the key is unknown, has expired or is not bound to this service; check "
    "it in the console, and write a new one into its file, which is noticed"
)
"""What is said of a key that a service has refused. There is nothing the gateway could do."""


KEY_LOCKED = (
    "a service has locked the access key after too many wrong signatures; nothing is sent with it "
    "for 5 minutes: check access key and secret key, and that nobody else uses them wrongly"
)


class Reason(StrEnum):
    """Why an identity has no usable credential."""

    STARTING = "the first login is still under way"
    REFUSED = "IAM refuses the login"
    THROTTLED = "IAM throttles logins"
    NETWORK = "IAM cannot be reached"
    TIMEOUT = "IAM does not respond in time"
    BAD_REPLY = "the secret cannot be read, IAM fails, or its response is not valid"
    RENEWING = "the last credential has expired or was rejected and is being replaced"
    CLOSED = "the gateway is shutting down"


@dataclass(frozen=True, slots=True)
class IdentityStatus:
    """What readiness, gauges and people see of a cache at one instant."""

    usable: bool
    reason: Reason | None
    """None while usable."""
    locked: bool
    """The last login was refused: none is made until a pause ends or the secret changes."""
    wall_expires_at: float | None
    """Seconds since the epoch; `inf`: never; None: nothing is usable."""
    next_login_s: float | None
    """Seconds until the next login by itself; None: one is under way, or none is due."""
    last_result: RefreshResult | None
    skew_s: float | None
    """Our wall clock minus IAM's, as last measured."""
    facts: TokenFacts | None
    """Of the usable token, if it is one."""
    refused_s: float | None = None
    """Seconds since a service last refused a key that the gateway cannot replace; None: never, or
    the key has been replaced. What it may mean is `KEY_REFUSED`."""
    detail: str = ""
    """What the last login failed of, with the remedy, even while a credential is usable; empty
    unless it failed. Safe to show: it quotes nobody."""

    def why(self) -> str:
        """Return why nothing is usable, as a sentence with the remedy; empty while usable."""
        if self.reason is None or self.detail.startswith(self.reason):
            return self.detail if self.reason else ""
        return ": ".join(filter(None, [self.reason, self.detail]))


class LoginLog:
    """Writes one line per login, but of the same result in a row not more than one a minute."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._last: RefreshResult | None = None
        self._last_at = -math.inf
        self._refused_at = -math.inf

    def succeeded(self, trigger: RefreshTrigger, login: Login, *, now: float) -> None:
        """Write that `login` was made, if it brought a token."""
        if login.facts is not None and self._is_news(RefreshResult.OK, now):
            _LOG.info(
                "identity %s: logged in (%s): user %s, project %s, token %s of %d bytes, "
                "to be used for %.0f s",
                self._identity,
                trigger,
                login.facts.user,
                login.facts.project,
                login.facts.fingerprint,
                login.facts.length,
                login.credential.expires_at - now,
            )

    def failed(
        self, trigger: RefreshTrigger, error: LoginError, *, now: float, next_s: float, usable: bool
    ) -> None:
        """Write why a login failed, when the next is due, and whether that hurts."""
        if self._is_news(error.result, now):
            _LOG.warning(
                "identity %s: login failed (%s): %s: %s; next login in %.1f s; %s",
                self._identity,
                trigger,
                error.result,
                str(error),  # the error itself would keep its frames, IAM's answer among them
                next_s,
                "the credential there is stays in use" if usable else "there is no credential",
            )

    def refused_by_service(self, *, now: float) -> None:
        """Write that a service refuses the key, not more than once a minute."""
        if now >= self._refused_at + _LOG_AGAIN_S:
            self._refused_at = now
            _LOG.warning("identity %s: %s", self._identity, KEY_REFUSED)

    def locked_out(self, *, now: float) -> None:
        """Write that a service has locked the access key."""
        if now >= self._refused_at + _LOG_AGAIN_S:
            self._refused_at = now
            _LOG.warning("identity %s: %s", self._identity, KEY_LOCKED)

    def _is_news(self, result: RefreshResult, now: float) -> bool:
        if result is self._last and now < self._last_at + _LOG_AGAIN_S:
            return False
        self._last, self._last_at = result, now
        return True
