"""What a real Prometheus says while the shipped rules run 60 times as fast."""

import asyncio
from collections.abc import Callable

from tests.programs.soak.ledger import Alert, Firing
from tests.programs.watch.stack import Stack

_EVERY_S = 0.4


class Pager:
    """Asks which alerts fire, again and again."""

    def __init__(self, stack: Stack, clock: Callable[[], float]) -> None:
        self.firings: list[Firing] = []
        self._now: dict[frozenset[tuple[str, str]], Firing] = {}
        self._stack = stack
        self._clock = clock

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            at = self._clock()
            told = await asyncio.to_thread(self._stack.ask, "alerts")
            firing = {
                frozenset(alert["labels"].items()): alert["labels"]
                for alert in told["alerts"]
                if alert["state"] == "firing"
            }
            self._now = {key: known for key, known in self._now.items() if key in firing}
            for key, labels in firing.items():
                if key not in self._now:
                    self._now[key] = Firing(labels["alertname"], labels, at, at)
                    self.firings.append(self._now[key])
                self._now[key].ended = self._clock()
            await asyncio.sleep(_EVERY_S)

    def hears(self, alert: Alert) -> bool:
        """Whether it fires now, as far as is known."""
        return any(alert.is_told_by(one.name, one.labels) for one in self._now.values())
