"""Whose fault it is that an exchange has got no further. Pure."""

from gateway.errors import DownstreamError, ErrorCode, GatewayError, UpstreamError
from gateway.proxy.phase import SENDING, TUNNEL, Phase


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
