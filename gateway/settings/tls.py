"""How TLS is used towards services and IAM."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.settings.sections import Fault, Section
from gateway.settings.types import HostName, ReadableFile


class Tls(Section):
    """How the other side is verified and how we show who we are, on https only."""

    ca_file: ReadableFile | None = None
    """PEM file of the authorities to trust instead of the system's; without the right one every
    connection ends with `tls_certificate_error`."""
    server_name: HostName | None = None
    """Name to ask for and to verify instead of the URL's host; for addresses and tunnels."""
    verify: bool = True
    """Whether the certificate is verified. `false` sends the token to whatever server is there, and
    causes a warning at every start."""
    client_cert_file: ReadableFile | None = None
    """PEM file of our own certificate with its chain, when the other side asks for one."""
    client_key_file: ReadableFile | None = None
    """PEM file of that certificate's key; may be left out when the certificate's file holds it."""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield a key without its certificate."""
        if "client_key_file" in given and "client_cert_file" not in given:
            yield ("client_cert_file",), "required with client_key_file"
