"""What is noted of one exchange while it lasts."""

import itertools
import os
from typing import Any, Final

from gateway.errors import GatewayError, Layer, UnavailableError
from gateway.http.request_head import RequestHead
from gateway.observe.service_metrics import KEY_REFUSED, ServiceMetrics, upstream_error_of
from gateway.proxy.attempt import Attempt
from gateway.proxy.body_watch import UnusualBody
from gateway.proxy.outcome import Outcome, outcome_of
from gateway.proxy.rejection import layer_of
from gateway.proxy.waits import Waits

_ID_PREFIX: Final = os.urandom(6).hex()
_next_number: Final = itertools.count(1).__next__
_GATEWAY: Final = Layer.GATEWAY  # looking members up is dear (Python 3.11)
_IDENTITY: Final = Layer.IDENTITY


class Observation:
    """What is known of one exchange. Durations are seconds, instants on the gateway's clock."""

    __slots__ = (
        "_request_id",
        "body",
        "ended_at",
        "error",
        "first_byte_at",
        "head",
        "layer",
        "metrics",
        "received_at",
        "rejection",
        "request_bytes",
        "response_bytes",
        "retries",
        "sent_at",
        "span",
        "status",
        "upstream_request_id",
        "vendor_code",
        "waits",
    )

    def __init__(self, head: RequestHead, received_at: float, unrouted: ServiceMetrics) -> None:
        """Count the request as begun, for no service until `count_for`."""
        self.head = head
        self.received_at = received_at
        self.metrics = unrouted
        unrouted.started += 1
        self.waits = Waits(received_at)
        self.status = 0
        """What the client got; 0 when it left before it had a response."""
        self.error = ""
        """Label of what went wrong, and whose fault it is."""
        self.layer = _GATEWAY
        self.rejection = ""
        """Why it was not taken, where that is so."""
        self.vendor_code = ""
        """In an error response of the service."""
        self.request_bytes = 0
        self.response_bytes = 0
        self.retries = 0
        self.sent_at = 0.0
        """When the last byte of the request was written; 0 while it was not."""
        self.first_byte_at = 0.0
        self.body: UnusualBody | None = None
        """Of the response, if it did not simply begin with its head."""
        self.ended_at = 0.0
        self.upstream_request_id = b""
        self.span: Any = None
        """The tracer's own, where there is one."""
        self._request_id = ""

    def count_for(self, metrics: ServiceMetrics) -> None:
        """Count the request for a service instead."""
        self.metrics.started -= 1
        metrics.started += 1
        self.metrics = metrics

    def request_id(self) -> str:
        """Return the client's own `X-Request-Id` if it is plain, else one made for this request."""
        if not self._request_id:
            self._request_id = self.head.request_id or f"{_ID_PREFIX}-{_next_number()}"
        return self._request_id

    def blame(self, error: GatewayError) -> None:
        """Note an error of ours, and count why the request was not taken, if it was not."""
        self.error = error.code.label
        self.layer = error.code.layer
        if isinstance(error, UnavailableError):
            self.rejection = error.reason.value
            self.metrics.count_rejection(error.reason)

    @property
    def outcome(self) -> Outcome:
        """What the end of the request says about its service."""
        return outcome_of(self.status, self.layer, self.error, self.vendor_code)

    def note_attempt(self, attempt: Attempt, now: float) -> None:
        """Note what there is of a response, of which nothing more will come."""
        head, relay = attempt.head, attempt.relay
        self.response_bytes = relay.response_bytes
        self.first_byte_at = attempt.first_byte_at
        if attempt.first_chunk_at or not relay.response_bytes or attempt.watch is not None:
            self.body = attempt.unusual_body(now)
        if head is None:
            return
        if relay.started:
            self.status = head.status
        self.upstream_request_id = head.request_id
        if not self.error and attempt.check is not None:
            self.vendor_code = attempt.check.vendor_code
            if attempt.is_key_refused:
                self.error, self.layer = KEY_REFUSED, _IDENTITY
            else:
                self.error = upstream_error_of(head.status)
                self.layer = layer_of(self.vendor_code)
