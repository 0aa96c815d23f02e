"""Who may call, by the names in a client certificate."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

OTHER: Final = "other"
"""A client that is not on the list."""


class ClientNames:
    """The list of callers, and how many connections each of them has opened.

    Invariant: a name that is counted is on the list, so that no caller can make it grow.
    """

    def __init__(self, allowed: Iterable[str], before: Mapping[str, int] | None = None) -> None:
        """Take subject alternative names; none: every verified certificate will do.

        `before` holds the counts of a list that this one replaces.
        """
        self._allowed = frozenset(allowed)
        self.connections: dict[str, int] = dict(before or {})
        """Connections since the start, by name; `OTHER` for those that are not on the list."""
        for name in (*sorted(self._allowed), OTHER):
            self.connections.setdefault(name, 0)

    def admit(self, certificate: Mapping[str, Any] | None) -> bool:
        """Return whether a verified certificate, as `ssl` describes it, may call; count it."""
        names = [value for _, value in (certificate or {}).get("subjectAltName", ())]
        known = next((name for name in names if name in self._allowed), OTHER)
        self.connections[known] += 1
        return known != OTHER or not self._allowed
