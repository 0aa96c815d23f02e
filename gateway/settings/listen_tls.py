"""What can be set about TLS on the data listener: who we are to callers, and who may call."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from gateway.settings.sections import Fault, Section
from gateway.settings.types import ReadableFile, Text, split_list


class ListenTls(Section):
    """TLS on the data listener. A renewed certificate is taken by itself, the rest by a reload."""

    cert_file: ReadableFile
    """PEM file of our certificate with its chain."""
    key_file: ReadableFile | None = None
    """PEM file of its key; may be left out when the certificate's file holds it."""
    client_ca_file: ReadableFile | None = None
    """PEM file of the authorities whose certificates callers must have; without one, the handshake
    fails. When left out, every program that can connect may call."""
    allowed_clients: Annotated[tuple[Text, ...], BeforeValidator(split_list)] = ()
    """Subject alternative names (DNS, URI, address or e-mail) of which a caller's certificate must
    have one; others get 403. When left out, every certificate of the authorities will do."""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield a list of clients without anybody who vouches for them."""
        if given.get("allowed_clients") and "client_ca_file" not in given:
            yield ("client_ca_file",), "required with allowed_clients"
