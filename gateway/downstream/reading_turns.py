"""Limits how long one turn of the event loop spends on the bytes that it has read.

The loop reads from every connection that has something before it does anything else. To act on what
a thousand clients send at once would take tenths of a second, and a request takes several turns.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from gateway.downstream.client_stream import FOR_TURN, ClientStream, Turns
from gateway.downstream.interfaces import Memory
from gateway.http.small_request import SMALL_BYTES, is_small_request

LONG_S: Final = 0.002
"""What is read later than that in a turn waits for one of the next."""
_FIRST_S: Final = 0.002
_LAST_S: Final = 0.001
"""For so long what waits is worked off in a turn: what goes first, then the rest."""
MOST_BYTES: Final = 2 * 2**20
"""May wait. What is read beyond it is acted on at once, however long the turn is, but for parts of
heads, of which nothing would be let go: nothing more is read then in this turn."""
READERS: Final = 16
"""Clients that may send more in a turn after a large read: a megabyte together."""
_PART: Final = 4
"""As many as one that gets more: a read from a service has 250 KiB."""
_SHORT_S: Final = 0.005
"""After which it is looked whether there is memory again for those."""


class ReadingTurns(Turns):
    """A queue of bytes that were read and are not processed yet, first come, first served.

    Invariants: while the queue is not empty, each turn of the loop processes some of it; a client
    with bytes in the queue is not read from. After a large read from a client, or for it, there is
    no other until it is its turn again; none has its turn while memory is short.
    """

    def __init__(self, clock: Callable[[], float], memory: Memory) -> None:
        """Prepare.

        Args:
            clock: of the time that we have worked, in seconds.
            memory: where it is noted that something waits.
        """
        self._clock = clock
        self._memory = memory
        self._began = 0.0
        self._is_noted = False  # that this turn has begun
        self._unread: dict[ClientStream, bytes] = {}
        self._unread_bytes = 0
        self._first: deque[ClientStream] = deque()  # a small request, or a small part of one
        self._last: deque[ClientStream] = deque()  # the others
        # After a large read, from the client or for it; nothing of them waits.
        self._resting: OrderedDict[ClientStream, None] = OrderedDict()
        self._is_resting = False  # until memory is looked at again
        self._due: ClientStream | None = None  # now

    def due(self, client: ClientStream, data: bytes, in_head: bool) -> bytes:
        """Return what is to be acted on now; see `Turns`."""
        if client is self._due:
            return data
        if client in self._unread:
            self._unread[client] += data
        elif self._is_long() and not self._has_too_much(data, in_head):
            self._unread[client] = data
            goes_first = is_small_request(data) if in_head else len(data) <= SMALL_BYTES
            (self._first if goes_first else self._last).append(client)
            client.hold(FOR_TURN)
        else:
            if len(data) > SMALL_BYTES:
                self.wait(client)
            return data
        client.waiting_bytes += len(data)
        self._unread_bytes += len(data)
        self._memory.note(len(data))
        return b""

    def wait(self, client: ClientStream) -> None:
        """Read nothing from a client until it is its turn; see `Turns`."""
        client.hold(FOR_TURN)
        self._rest(client)

    def rest(self, client: ClientStream) -> None:
        """Read nothing more of a response until it is the client's turn; see `Turns`."""
        client.rests = True
        self._rest(client)

    def _rest(self, client: ClientStream) -> None:
        self._resting[client] = None
        if not self._is_noted:
            self._note_begin()

    def forget(self, client: ClientStream) -> None:
        """Drop what waits of a client."""
        self._take(client)
        self._resting.pop(client, None)

    def _take(self, client: ClientStream) -> bytes:
        data = self._unread.pop(client, b"")
        client.waiting_bytes = 0
        self._unread_bytes -= len(data)
        return data

    def _has_too_much(self, data: bytes, in_head: bool) -> bool:
        """Return whether so much waits that `data` must not."""
        if self._unread_bytes <= MOST_BYTES:
            return False
        if in_head and b"\r\n\r\n" not in data:
            self._memory.stop_reading()
            return False
        return True

    def _is_long(self) -> bool:
        if self._is_noted:
            return self._clock() - self._began > LONG_S
        self._note_begin()
        return False

    def _note_begin(self) -> None:
        self._is_noted = True
        self._began = self._clock()
        asyncio.get_running_loop().call_soon(self._begin_next)

    def _begin_next(self) -> None:
        """Begin the next turn; called by the loop before it reads again."""
        self._is_noted = False
        if self._first or self._last:
            self._note_begin()
            self._work_off(self._first, _FIRST_S)
            self._work_off(self._last, _LAST_S)
        if self._resting and not self._is_resting:
            self._read_on()

    def _read_on(self) -> None:
        """Read again from some of those that rest, or look later if memory is short."""
        self._is_resting = self._memory.is_short
        if self._is_resting:
            asyncio.get_running_loop().call_later(_SHORT_S, self._read_on)
            return
        left = READERS
        while self._resting and left > 0:
            client, _ = self._resting.popitem(last=False)
            cost = _PART if client.rests else 1
            if client.go_on():
                left -= cost
        if self._resting and not self._is_noted:
            self._note_begin()

    def _work_off(self, waiting: deque[ClientStream], for_s: float) -> None:
        clock = self._clock
        until = clock() + for_s
        is_newest = False
        while waiting:
            is_newest = waiting is self._first and not is_newest
            self._due = client = waiting.pop() if is_newest else waiting.popleft()
            data = self._take(client)
            try:
                if data:
                    client.owner.data_received(data)
            except Exception:
                client.abort()  # as the loop does where it calls `data_received` itself
                raise
            finally:
                self._due = None
                if len(data) > SMALL_BYTES:
                    self._resting[client] = None
                else:
                    client.release(FOR_TURN)
            if clock() > until:
                break
