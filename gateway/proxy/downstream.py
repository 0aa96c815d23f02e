"""The way back to one client: the seam between `proxy/` and `downstream/`."""

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Downstream:
    """A client's connection, as an exchange sees it.

    Nothing here waits or fails; a client that has left is ignored.
    """

    __slots__ = ()

    def writing_paused(self) -> bool:
        """Return whether the client reads more slowly than we write."""
        raise NotImplementedError

    def has_left(self) -> bool:
        """Return whether the client is gone, even while nothing is read from it."""
        raise NotImplementedError

    def write(self, pieces: list[bytes]) -> None:
        """Send pieces in order, in as few segments as possible."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Leave what the client sends in the kernel until `resume_reading`."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Go on reading; does nothing when not paused."""
        raise NotImplementedError

    def abort(self) -> None:
        """Break the connection, so that a response under way cannot pass for complete."""
        raise NotImplementedError

    def exchange_ended(self, keep_alive: bool, now: float) -> None:
        """Called once, when the request has been answered or given up, and accounted for.

        Args:
            keep_alive: the connection may be used for another request.
            now: seconds on the gateway's clock.
        """
        raise NotImplementedError
