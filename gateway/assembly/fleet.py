"""Fleet settings → this process's access to what all replicas share."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.assembly.tls import tls_context
from gateway.errors import ConfigError
from gateway.identity.secret import SecretFile
from gateway.identity.source import LoginError
from gateway.settings import Tls
from gateway.settings.fleet import Fleet as FleetSettings

if TYPE_CHECKING:
    from gateway.identity.fleet.fleet import Fleet

_NEEDS_EXTRA = (
    "fleet: needs packages that are not installed; install modelarts-gateway[fleet], or take the "
    "section out"
)
_LOG = logging.getLogger("gateway.identity")


def build_fleet(settings: FleetSettings) -> "Fleet | None":
    """Return the access to the fleet's store; connects when it is watched.

    None: a file cannot be used, which is logged; the gateway then works as without a fleet.

    Raises:
        ConfigError: the extra `fleet` is not installed, or a certificate cannot be used.
    """
    try:
        from gateway.identity.fleet.fleet import Fleet
        from gateway.identity.fleet.redis_shelf import RedisShelf, redis_client
    except ImportError:
        raise ConfigError([_NEEDS_EXTRA]) from None
    problems = fleet_problems(settings)
    for problem in problems:
        _LOG.warning("%s; until the next start this replica logs in by itself", problem)
    if problems:
        return None
    url = settings.url
    password = url.password.get_secret_value() if url.password is not None else None
    if settings.password_file is not None:
        password = SecretFile(settings.password_file).read().get_secret_value()
    client = redis_client(
        host=url.host,
        port=url.port,
        path=url.path,
        database=url.database,
        username=settings.username or url.username,
        password=password,
        tls=tls_context("fleet.tls", _tls_of(settings)) if url.is_tls else None,
    )
    return Fleet(RedisShelf(client, settings.prefix), _keys_in(settings.key_file))


def fleet_problems(settings: FleetSettings) -> list[str]:
    """Return a line for each file that cannot be used. Blocks.

    Raises:
        ConfigError: the extra `fleet` is not installed.
    """
    try:
        from gateway.identity.fleet.keys import FleetKeyError
    except ImportError:
        raise ConfigError([_NEEDS_EXTRA]) from None
    problems = []
    try:
        _keys_in(settings.key_file)
    except (FleetKeyError, LoginError) as error:
        problems.append(f"fleet.key_file: {error}")
    if settings.password_file is not None:
        try:
            SecretFile(settings.password_file).read()
        except LoginError as error:
            problems.append(f"fleet.password_file: {error}")
    return problems


def _keys_in(file: Path) -> Any:
    from gateway.identity.fleet.keys import keys_in

    return keys_in(SecretFile(file).read().get_secret_value())


def _tls_of(settings: FleetSettings) -> Tls:
    tls = settings.tls
    given = {
        "ca_file": tls.ca_file,
        "verify": tls.verify,
        "client_cert_file": tls.client_cert_file,
        "client_key_file": tls.client_key_file,
    }
    return Tls.model_validate(given)
