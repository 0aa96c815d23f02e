"""Signal handlers, in place from the start of the process. Imports nothing that is slow."""

import signal
from collections.abc import Callable
from types import FrameType

_END = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Receives SIGTERM, SIGINT and, where a reload is possible, SIGHUP; loses none.

    Signals before `follow` are kept: SIGTERM while libraries are still being imported is an orderly
    end, and SIGHUP, which ends other programs, is a reload.
    """

    def __init__(self, *, reload: bool = False) -> None:
        """Install the handlers; only in the main thread."""
        self._ends = 0
        self._early: list[signal.Signals] = []
        self._notify: Callable[[signal.Signals], None] | None = None
        for number in (*_END, signal.SIGHUP) if reload else _END:
            signal.signal(number, self._hear)

    @property
    def told_to_end(self) -> bool:
        """Whether SIGTERM or SIGINT has been received."""
        return self._ends > 0

    def follow(self, notify: Callable[[signal.Signals], None]) -> None:
        """Call `notify` for each signal from now on, and at once for those received before.

        It is called between two bytecodes, whatever is running: it must do next to nothing.
        """
        self._notify = notify
        while self._early:
            notify(self._early.pop(0))

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if number in _END:
            self._ends += 1
            if self._ends > (2 if self._notify is not None else 1):
                # The event loop hangs: it did not act on the previous one. Use the default action.
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
        if self._notify is not None:
            self._notify(signal.Signals(number))
        else:
            self._early.append(signal.Signals(number))
