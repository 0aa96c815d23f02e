"""Who may log in, and the lock-out that IAM puts on guessing. No I/O; the caller passes `now`."""

from collections import deque
from dataclasses import dataclass, field
from hashlib import sha256


def identifier(*names: str) -> str:
    """Return a Keystone-style id, 32 hexadecimal digits; equal names have equal ids."""
    return sha256("/".join(names).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Account:
    """One user of the stand-in cloud, with one project. Its secrets protect nothing real."""

    user: str = "infer"
    password: str = field(default="twin-password", repr=False)
    domain: str = "my-account"
    project: str = "ap-southeast-1"
    credential_id: str = "twin-credential"
    """Application credential of this user in this project."""
    credential_secret: str = field(default="twin-secret", repr=False)
    credential_name: str = "gateway"
    api_key: str = field(default="twin-api-key", repr=False)
    """For services of the new version, at `/v2/infers`."""
    access_key: str = "TWINACCESSKEY0000001"
    secret_key: str = field(default="twin-secret-key", repr=False)
    """To sign requests with, for services of the old version, at `/v1/infers`."""
    app_code: str = field(default="twin-app-code", repr=False)
    """For services of the old version, at `/v1/infers`."""

    @property
    def domain_id(self) -> str:
        """Id of the domain."""
        return identifier("domain", self.domain)

    @property
    def user_id(self) -> str:
        """Id of the user."""
        return identifier("user", self.domain, self.user)

    @property
    def project_id(self) -> str:
        """Id of the project."""
        return identifier("project", self.domain, self.project)


class Lockout:
    """Locks one user for 15 minutes after 5 wrong logins within 15 minutes.

    Source: the vendor's default account policy.
    """

    MAX_FAILURES = 5
    WINDOW_S = 900.0
    LOCKED_S = 900.0

    def __init__(self) -> None:
        self._failures: deque[float] = deque()
        self._locked_until = float("-inf")

    def is_locked(self, now: float) -> bool:
        """Return whether even the right password is refused at `now`."""
        return now < self._locked_until

    def note_failure(self, now: float) -> None:
        """Count a wrong password; the fifth one locks the account."""
        self._failures.append(now)
        while self._failures[0] <= now - self.WINDOW_S:
            self._failures.popleft()
        if len(self._failures) >= self.MAX_FAILURES:
            self._locked_until = now + self.LOCKED_S

    def note_success(self) -> None:
        """Set the count of wrong passwords to zero, after a right one."""
        self._failures.clear()
