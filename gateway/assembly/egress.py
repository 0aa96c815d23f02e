"""Egress proxy settings → what connections are opened with."""

from base64 import b64encode
from pathlib import Path

from gateway.errors import ConfigError
from gateway.http.connect import EgressProxy
from gateway.identity.secret import SecretFile
from gateway.identity.source import LoginError
from gateway.settings.addresses import parse_url
from gateway.settings.egress import EgressProxy as ProxySettings


def build_proxy(key: str, settings: ProxySettings) -> EgressProxy | None:
    """Return the proxy, or None if there is none. Reads its password; blocks.

    Args:
        key: of the settings, for the error.
        settings: checked.

    Raises:
        ConfigError: the password cannot be used.
    """
    if settings.url is None:
        return None
    url = parse_url(settings.url)
    authorization = b""
    if settings.username is not None and settings.password_file is not None:
        password = _password_in(key, settings.password_file)
        authorization = b"Basic " + b64encode(f"{settings.username}:{password}".encode())
    return EgressProxy(host=url.host, port=url.port, authorization=authorization)


def _password_in(key: str, file: Path) -> str:
    try:
        return SecretFile(file).read().get_secret_value()
    except LoginError as error:
        raise ConfigError([f"{key}.password_file: {error}"]) from None
