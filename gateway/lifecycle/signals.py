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
        self._ends = 0
        self._early: list[signal.Signals] = []
        self._notify: Callable[[signal.Signals], None] | None = None
        for number in (*_END, signal.SIGHUP) if reload else _END:
            signal.signal(number, self._hear)

    @property
    def told_to_end(self) -> bool:
        """Whether one of the two that mean it has been heard."""
        return self._ends > 0

    def follow(self, notify: Callable[[signal.Signals], None]) -> None:
        """Call `notify` for each signal from now on, and at once for those heard before.

        It is called between two bytecodes, whatever is running: it must do next to nothing.
        """
        self._notify = notify
        while self._early:
            notify(self._early.pop(0))

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if number in _END:
            self._ends += 1
            if self._ends > (2 if self._notify is not None else 1):
                # Whoever should act on the one before hangs: do what the signal does by itself.
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
        if self._notify is not None:
            self._notify(signal.Signals(number))
        else:
            self._early.append(signal.Signals(number))
