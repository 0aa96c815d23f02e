"""What a request waits for before it can be sent, once it has its turn."""

from collections.abc import Callable

from gateway.identity.credential import Credential
from gateway.proxy.service import Service
from gateway.proxy.waits import CONNECTION, CREDENTIAL, Waits
from gateway.upstream.connection import Connection


async def obtain(
    service: Service,
    credential: Credential | None,
    waits: Waits,
    clock: Callable[[], float],
) -> tuple[Credential, Connection, float]:
    """Wait for a credential and a connection; return both, and the time when both were ready.

    Args:
        service: where the request goes.
        credential: to be used; None: one is asked for.
        waits: notes each wait and its length.
        clock: of the exchanges, in seconds.

    Raises:
        GatewayError: one of them cannot be obtained; `waits` still notes the wait.

    Cancellation: safe; nothing is held.
    """
    now = clock()
    if credential is None:
        if waits.current is not CREDENTIAL:
            waits.begin(CREDENTIAL, now)
        credential = await service.credentials.obtain()
        now = clock()
    connection = service.pool.take(now)
    if connection is None:
        if waits.current is not CONNECTION:
            waits.begin(CONNECTION, now)
        connection = await service.pool.connect()
        now = clock()
    waits.end(now)
    return credential, connection, now
