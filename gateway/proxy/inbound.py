"""A request as it comes in, and the way back to its caller: downstream/'s seam to proxy/."""

from typing import TYPE_CHECKING, Protocol

from gateway.http.fields import RawFields

if TYPE_CHECKING:  # admission reads what comes in
    from gateway.proxy.admission import Admission, Rules


class Downstream(Protocol):
    """The way back to one caller. Nothing here waits or fails; a caller that left is ignored."""

    deadline: float
    """When the exchange under way is to be looked at; see `Deadlines`."""

    @property
    def writing_paused(self) -> bool:
        """Whether the caller reads more slowly than we write."""
        ...

    def write(self, pieces: list[bytes]) -> None:
        """Send pieces in order, in as few segments as possible."""
        ...

    def pause_reading(self) -> None:
        """Leave what the caller sends in the kernel until `resume_reading`."""
        ...

    def resume_reading(self) -> None:
        """Go on reading; does nothing when not paused."""
        ...

    def abort(self) -> None:
        """Break the connection so that an answer under way cannot pass for complete."""
        ...

    def exchange_ended(self, *, keep_alive: bool, now: float) -> None:
        """Hear that the request has been answered or given up, and accounted for.

        Args:
            keep_alive: the connection may be used for another request.
            now: seconds on the proxy's clock.
        """
        ...


class KnownHead:
    """A head that has come before, byte for byte: it means the same, and is judged the same.

    Shared by the requests that have it. Not changed, but for what is found out and remembered. It
    is of HTTP/1.1, keeps its connection, and announces a body by Content-Length or none.
    """

    __slots__ = ("admission", "body_bytes", "fields", "method", "request_id", "rules", "target")

    def __init__(self, method: str, target: bytes, fields: RawFields, body_bytes: int) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.body_bytes = body_bytes
        """How long the body is that it announces."""
        self.rules: Rules | None = None
        """Those by which `admission` was decided."""
        self.admission: Admission | None = None
        self.request_id: str | None = None
        """The caller's own, or empty; None: not looked for yet."""


class Inbound:
    """A request's head, and its body as it arrives. downstream/ fills it, proxy/ empties `body`."""

    __slots__ = (
        "body",
        "ended",
        "fields",
        "keep_alive",
        "known",
        "method",
        "received_at",
        "target",
        "version",
    )

    def __init__(  # noqa: PLR0917  # keywords cost a dict per call
        self,
        method: str,
        target: bytes,
        version: str,
        fields: RawFields,
        keep_alive: bool,
        received_at: float,
    ) -> None:
        self.method = method
        """Upper case; empty when it is not a known one."""
        self.target = target
        """As received."""
        self.version = version
        """Such as `1.1`."""
        self.fields = fields
        self.keep_alive = keep_alive
        """The caller wants to use its connection again, and may."""
        self.received_at = received_at
        """When the end of the head arrived. Seconds on the proxy's clock."""
        self.body: list[bytes] = []
        """Pieces that have arrived and were not taken yet, without framing."""
        self.ended = False
        """Whether nothing more will arrive."""
        self.known: KnownHead | None = None
        """What is remembered of its head; then all of the request is here."""
