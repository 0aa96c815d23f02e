"""Whether the files that the settings name can be used."""

from gateway.assembly.fleet import fleet_problems
from gateway.assembly.identities import build_identity
from gateway.assembly.tls import server_context, tls_context
from gateway.errors import ConfigError
from gateway.settings import Settings


def problems_of(settings: Settings) -> list[str]:
    """Return the problems of the files that the settings name."""
    problems: list[str] = []
    if settings.fleet is not None:
        try:
            fleet_problems(settings.fleet)
        except ConfigError as error:
            problems.extend(error.problems)
    if settings.listen_tls is not None:
        try:
            server_context(settings.listen_tls)
        except ConfigError as error:
            problems.extend(error.problems)
    for name, service in settings.services.items():
        try:
            tls_context(f"services.{name}.tls", service.tls)
        except ConfigError as error:
            problems.extend(error.problems)
    for name, identity in settings.identities.items():
        try:
            build_identity(name, identity)
        except ConfigError as error:
            problems.extend(error.problems)
    return problems
