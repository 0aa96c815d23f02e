"""The results of an identity's logins, and when IAM may be asked again."""

from collections import Counter
from collections.abc import Callable

from gateway.errors import ErrorCode
from gateway.identity.refresh import RefreshResult, RefusalLedger, family, pause_after
from gateway.identity.report import KEY_LOCKED, Reason
from gateway.identity.source import Login, LoginError

LOCKED_OUT_S = 300.0
"""For how long the vendor locks an access key after five wrong signatures."""


class LoginHistory:
    """Owns the last result, the failures in a row, and the pause that follows from them.

    Does no I/O and reads no clock: `now` is passed in. It shares the account's ledger with the
    caches of the same account, so that it knows of their refusals, too.
    """

    def __init__(self, ledger: RefusalLedger, random: Callable[[], float]) -> None:
        """Begin without any login; `random` returns [0, 1)."""
        self._ledger = ledger
        self._random = random
        self._quiet_until = float("-inf")
        self._failures: Counter[RefreshResult] = Counter()
        self.last: RefreshResult | None = None
        """How the last login ended."""
        self.skew_s: float | None = None
        """Our wall clock minus IAM's, as last measured."""
        self._refused_at: float | None = None
        self.detail = ""
        """What the last login failed of, with the remedy; empty unless it failed."""
        self.refusal = ""
        """The same for callers, and only if it was refused."""

    def begin(self) -> None:
        """Note that a login starts; `end` must follow."""
        self._ledger.begin()

    def end(self, now: float, *, refused: bool) -> None:
        """Note that a login has ended, even one whose result is not used."""
        self._ledger.end(now, refused=refused)

    def succeeded(self, login: Login, *, began: float, taken_over: bool) -> None:
        """Note a login, or that one of another cache was taken over, which IAM has not noticed."""
        self._note(RefreshResult.OK, login.skew_s)
        self._refused_at = None
        self.detail = self.refusal = ""
        self._failures.clear()
        if not taken_over:
            self._quiet_until = began + self._pause_s(RefreshResult.OK, None)

    def failed(self, error: LoginError, now: float) -> None:
        """Note a login that failed, and begin the pause that its result requires."""
        self._note(error.result, error.skew_s)
        self.detail = str(error)
        self.refusal = error.public if error.result is RefreshResult.REFUSED else ""
        self._failures[family(error.result)] += 1
        is_told = error.is_remembered or error.result is RefreshResult.THROTTLED
        self._quiet_until = now + self._pause_s(
            error.result, error.retry_after_s if is_told else None
        )

    def token_rejected(self, now: float) -> None:
        """Lift the least interval between logins: it is for tokens that die of age."""
        if self.last is RefreshResult.OK:
            self._quiet_until = now

    def locked_out(self, now: float) -> None:
        """Note that a service has locked the credential, which is as good as a refused login."""
        self.last = RefreshResult.REFUSED
        self.detail = self.refusal = KEY_LOCKED
        self._quiet_until = now + LOCKED_OUT_S

    def refused_by_service(self, now: float) -> None:
        """Note that a service has refused a credential that cannot be replaced."""
        self._refused_at = now

    def refused_by_service_s(self, now: float) -> float | None:
        """Return for how many seconds that is true; None if it is not, or no longer."""
        return None if self._refused_at is None else now - self._refused_at

    def secret_changed(self, now: float) -> None:
        """Allow a login with a new secret even if the old one was refused."""
        if self.last is RefreshResult.REFUSED:
            self._quiet_until = now
            del self._failures[RefreshResult.REFUSED]

    def opens_at(self, now: float) -> float:
        """Return when the next login may start; not later than `now` if it may at once."""
        return max(self._quiet_until, self._ledger.opens_at(now))

    def waits_for_others(self, now: float) -> bool:
        """Return whether a login must wait only because another one of the account is under way."""
        ledger = self._ledger
        return ledger.one_at_a_time and self._quiet_until <= now and ledger.is_busy(now)

    def locked(self, now: float) -> bool:
        """Return whether the next login must wait because of a refused one."""
        return self.last is RefreshResult.REFUSED or self._ledger.exhausted(now)

    def reason(self) -> Reason:
        """Return why there is no usable credential, if there is none."""
        match self.last:
            case None:
                return Reason.STARTING
            case RefreshResult.OK:
                return Reason.RENEWING
            case _:
                return Reason[self.last.name]

    def error_code(self, now: float) -> ErrorCode:
        """Return what callers are told if there is no usable credential."""
        if self.locked(now):
            return ErrorCode.LOGIN_REFUSED
        if self.last is RefreshResult.THROTTLED:
            return ErrorCode.LOGIN_THROTTLED
        return ErrorCode.TOKEN_UNAVAILABLE

    def _note(self, result: RefreshResult, skew_s: float | None) -> None:
        self.last = result
        if skew_s is not None:
            self.skew_s = skew_s

    def _pause_s(self, result: RefreshResult, retry_after_s: float | None) -> float:
        return pause_after(
            result,
            failures_in_a_row=self._failures[family(result)],
            retry_after_s=retry_after_s,
            spread=self._random(),
        )
