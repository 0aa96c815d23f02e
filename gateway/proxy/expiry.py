"""When an exchange must have got further, and whose fault it is if it has not."""

from gateway.errors import DownstreamError, ErrorCode, GatewayError, UpstreamError
from gateway.proxy.attempt import Attempt
from gateway.proxy.phase import QUEUED, RELAYING, SENDING, TUNNEL, Phase
from gateway.proxy.request_body import RequestBody


def deadline_of(
    phase: Phase,
    attempt: Attempt,
    body: RequestBody,
    now: float,
    *,
    request_ended: bool,
    progressed_at: float,
) -> float:
    """Return the deadline of the wait that a request is in; each wait has its own timeout.

    Args:
        phase: of the exchange.
        attempt: under way.
        body: of the request; it knows whether the upload is too slow.
        now: seconds on the clock of the exchanges, as the returned deadline is.
        request_ended: the whole request has been read.
        progressed_at: when the client's bytes last got further.
    """
    service = attempt.admission.service
    if phase is SENDING and request_ended:
        return progressed_at + service.first_byte_s
    if phase is SENDING:
        waits = not attempt.connection.writing_paused
        if body.falls_behind(now, service.upload_rate, is_awaited=waits):
            return 0.0
    elif phase is RELAYING and attempt.awaits_body and request_ended:
        return progressed_at + service.first_chunk_s
    return max(progressed_at, attempt.last_byte_at) + service.idle_s


def expiry_error(
    phase: Phase, *, request_ended: bool, service_paused: bool, client_paused: bool
) -> GatewayError | None:
    """Return the error that ends an exchange that is past its deadline; None: nobody's fault.

    Args:
        phase: of the exchange.
        request_ended: the whole request has been read.
        service_paused: the service reads more slowly than we write.
        client_paused: the client does.
    """
    if phase is QUEUED:
        return DownstreamError(ErrorCode.SLOW_REQUEST)
    if phase is SENDING:
        if request_ended:
            return UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, "no response")
        if service_paused:
            return UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, "does not read the request")
        return DownstreamError(ErrorCode.SLOW_REQUEST)
    if client_paused:
        return DownstreamError(ErrorCode.CLIENT_DISCONNECTED, "reads too slowly")
    if phase is TUNNEL:
        return None  # neither had anything to say
    return UpstreamError(ErrorCode.HTTP_RESPONSE_TIMEOUT, "stalled in its response")
