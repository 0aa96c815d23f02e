"""Everything that can be configured: `load()` reads it, `Settings` holds it.

Flag > environment > file > default; every problem at once. Needs nothing but `gateway.errors`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.settings.addresses import ListenAddress, Url
    from gateway.settings.environment import find_log_level
    from gateway.settings.identity import Identity
    from gateway.settings.loading import Loaded, load
    from gateway.settings.models import Drain, Service, Settings, Timeouts
    from gateway.settings.probe import find_admin_listen
    from gateway.settings.tls import Tls

__all__ = [
    "Drain",
    "Identity",
    "ListenAddress",
    "Loaded",
    "Service",
    "Settings",
    "Timeouts",
    "Tls",
    "Url",
    "find_admin_listen",
    "find_log_level",
    "load",
]

_HOMES = {"Loaded": "loading", "load": "loading", "find_admin_listen": "probe"}
_HOMES |= {"find_log_level": "environment", "ListenAddress": "addresses", "Url": "addresses"}
_HOMES |= {"Identity": "identity", "Tls": "tls"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a probe needs no pydantic, which costs 0.2 s of CPU per run."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'models')}"), name)
