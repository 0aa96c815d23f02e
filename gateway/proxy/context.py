"""What all exchanges of one gateway have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.http.date import DateField
from gateway.http.request import Request
from gateway.proxy.accounting import Observer
from gateway.proxy.admission import Admission, RefusedByServiceError, Rules, admit
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.observation import Observation
from gateway.proxy.replay import ReplayBudget


@dataclass(slots=True)
class ExchangeContext:
    """What an exchange needs beside its request. `rules` is replaced on reload."""

    rules: Rules
    deadlines: Deadlines
    clock: Callable[[], float]
    """Seconds, monotonic, going on during suspend; credentials expire on the same clock."""
    observer: Observer
    dates: DateField
    replay_budget: ReplayBudget = field(default_factory=ReplayBudget)

    def admit(self, request: Request, seen: Observation) -> Admission:
        """Return what may go on of a request, which is counted for its service.

        Raises:
            GatewayError: it may not go on.
        """
        try:
            admission = admit(self.rules, request)
        except RefusedByServiceError as error:
            seen.count_for(error.service.metrics)
            raise
        seen.count_for(admission.service.metrics)
        return admission
