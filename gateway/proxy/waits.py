"""Where the time of an exchange goes that is not the gateway's own."""

from enum import StrEnum
from typing import Final


class Wait(StrEnum):
    """What an exchange waits for."""

    PEERS = "peers"
    """The client's body, or the service's response."""
    QUEUE = "queue"
    """Its turn among the requests of a service that has a limit."""
    CREDENTIAL = "credential"
    CONNECTION = "connect"


PEERS: Final = Wait.PEERS
QUEUE: Final = Wait.QUEUE
CREDENTIAL: Final = Wait.CREDENTIAL
CONNECTION: Final = Wait.CONNECTION


class Waits:
    """The waits of one exchange, one at a time: first for its client, since `begun_at`.

    Instants are seconds on the gateway's clock.
    """

    __slots__ = (
        "_begun_at",
        "connect_s",
        "credential_s",
        "current",
        "named",
        "named_s",
        "peers_s",
        "queue_s",
    )

    def __init__(self, begun_at: float) -> None:
        self.peers_s = 0.0
        self.queue_s = 0.0
        self.credential_s = 0.0
        self.connect_s = 0.0
        self.named_s = 0.0
        """All but that for peers."""
        self.named: tuple[tuple[str, float, float], ...] = ()
        """Name, begin and end of each wait for a turn, a credential or a connection."""
        self.current: Wait | None = PEERS
        """What is waited for at present."""
        self._begun_at = begun_at

    def begin(self, wait: Wait, now: float) -> None:
        """Begin to wait at `now`; a wait under way ends."""
        if self.current is not None:
            self.end(now)
        self.current = wait
        self._begun_at = now

    def end(self, now: float) -> None:
        """End the wait under way, if there is one."""
        current, begun_at = self.current, self._begun_at
        if current is None:
            return
        self.current = None
        waited_s = now - begun_at
        if current is PEERS:
            if waited_s > 0.0:
                self.peers_s += waited_s
            return
        self.named_s += waited_s
        if current is CREDENTIAL:
            self.credential_s += waited_s
        elif current is QUEUE:
            self.queue_s += waited_s
        else:
            self.connect_s += waited_s
        self.named = (*self.named, (current.value, begun_at, now))
