"""What the process is told by signals, from its first moments on. Imports nothing that is slow."""

import signal
from collections.abc import Callable
from types import FrameType

_END = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Hears SIGTERM, SIGINT and, where reloading makes sense, SIGHUP; forgets none.

    What is heard before `follow` is kept: whoever sends SIGTERM while libraries are still being
    imported gets an end in good order, and SIGHUP, which ends other programs, is a reload.
    """

    def __init__(self, *, reload: bool = False) -> None:
        """Begin to hear; only in the main thread."""
        self.told_to_end = False
        self._early: list[signal.Signals] = []
        self._notify: Callable[[signal.Signals], None] | None = None
        for number in (*_END, signal.SIGHUP) if reload else _END:
            signal.signal(number, self._hear)

    def follow(self, notify: Callable[[signal.Signals], None]) -> None:
        """Call `notify` for each signal from now on, and at once for those heard before.

        It is called between two bytecodes, whatever is running: it must do next to nothing.
        """
        self._notify = notify
        while self._early:
            notify(self._early.pop(0))

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        again = self.told_to_end
        self.told_to_end |= number in _END
        if self._notify is not None:
            self._notify(signal.Signals(number))
        elif again and number in _END:  # something hangs before there is anything to drain
            heed_no_more()
            signal.raise_signal(number)
        else:
            self._early.append(signal.Signals(number))


def heed_no_more() -> None:
    """Let the next SIGTERM or SIGINT end the process as it is."""
    for number in _END:
        signal.signal(number, signal.SIG_DFL)
