"""Identity settings → what reads their secrets, and whether those can be used."""

import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from gateway.assembly.egress import build_proxy
from gateway.errors import ConfigError
from gateway.identity.access_key import AccessKey, access_key_of
from gateway.identity.id_token import claims_of
from gateway.identity.key import key_line
from gateway.identity.secret import SecretFile, is_placeholder
from gateway.identity.source import LoginError
from gateway.settings import Identity, Settings
from gateway.settings.identity import SECRETS

_T = TypeVar("_T")
_LONGEST_PASSWORD = 4096
"""Characters; Keystone takes no more by default."""


def secret_of(
    value: SecretStr | None, file: Path | None
) -> tuple[Callable[[], SecretStr], tuple[SecretFile, ...]]:
    """Return what reads a secret, and the file that it is read from, if it is."""
    if value is not None:
        return lambda: value, ()
    secret_file = SecretFile(required(file))
    return secret_file.read, (secret_file,)


def next_secret_file(identity: Identity) -> SecretFile | None:
    """Return the file with the password to try when the first is refused, if one is named."""
    path = identity.next_password_file
    return None if path is None else SecretFile(path, optional=True)


def access_key_reader(
    identity: Identity,
) -> tuple[Callable[[], AccessKey], tuple[SecretFile, ...]]:
    """Return what reads an access key, and the files that it reads."""
    given_id = None if identity.access_key is None else SecretStr(identity.access_key)
    read_id, files = secret_of(given_id, identity.access_key_file)
    read_secret, more_files = secret_of(identity.secret_key, identity.secret_key_file)
    files += more_files
    read_token: Callable[[], SecretStr | None] = lambda: None  # noqa: E731
    if identity.security_token is not None or identity.security_token_file is not None:
        read_token, more_files = secret_of(identity.security_token, identity.security_token_file)
        files += more_files

    def read_key() -> AccessKey:
        return access_key_of(read_id().get_secret_value(), read_secret(), read_token())

    return read_key, files


def unusable_secrets(settings: Settings, *, tokens: bool = True) -> list[str]:
    """Return a line for each secret file that has no usable content. Blocks.

    `tokens` False passes over `token_file`, which somebody else may have yet to fill.
    """
    problems = [
        *unusable_keys(settings),
        *unusable_proxies(settings),
        *unusable_passwords(settings),
    ]
    for name, identity in settings.identities.items():
        if tokens and identity.token_file is not None:
            try:
                SecretFile(identity.token_file).read()
            except LoginError as error:
                problems.append(f"identities.{name}.token_file: {error}")
    return problems


def unusable_passwords(
    settings: Settings, *, besides: Collection[str] = (), unreadable: bool = True
) -> list[str]:
    """Return a line for each password that cannot be one. Blocks.

    Identities named in `besides` are passed over, and files that cannot be read or hold nothing
    unless `unreadable`.
    """
    problems = []
    for where, secret in _passwords(settings, besides):
        if isinstance(secret, LoginError):
            problems += [f"{where}: {secret}"] if unreadable else []
        elif not secret.get_secret_value().strip():
            problems.append(f"{where}: nothing but white space; give the password itself")
        elif len(secret.get_secret_value()) > _LONGEST_PASSWORD:
            problems.append(
                f"{where}: longer than {_LONGEST_PASSWORD} characters, which no password is; name "
                "the file that holds the password alone"
            )
    return problems


def odd_secrets(settings: Settings) -> list[str]:
    """Return a line for each secret that looks wrong, or that others can read. Blocks."""
    warnings = []
    for where, secret in _passwords(settings, ()):
        text = "" if isinstance(secret, LoginError) else secret.get_secret_value()
        if text != text.strip():
            warnings.append(
                f"{where}: begins or ends with white space, which counts; write it without, unless "
                "it is meant (printf instead of echo)"
            )
        elif "\n" in text:
            warnings.append(f"{where}: has several lines, which all count; write the secret alone")
    for where, file in _secret_files(settings):
        if _is_open_to_all(file):
            warnings.append(
                f"{where}: every user of this machine can read {file}; chmod 600 {file}, or 0640 "
                "and the gateway's group"
            )
    return warnings


def _passwords(
    settings: Settings, besides: Collection[str]
) -> Iterator[tuple[str, SecretStr | LoginError]]:
    """Yield key and value of each secret that logs in, or why it cannot be had."""
    for name, identity in settings.identities.items():
        if name in besides:
            continue
        for key in ("password", "secret"):
            value = getattr(identity, key)
            if value is not None:
                yield f"identities.{name}.{key}", value
        for key in ("password_file", "next_password_file", "secret_file"):
            file = getattr(identity, key)
            is_optional = key == "next_password_file"
            if file is None or (is_optional and not (file.exists() and file.stat().st_size)):
                continue
            try:
                yield f"identities.{name}.{key}", SecretFile(file).read()
            except LoginError as error:
                yield f"identities.{name}.{key}", error


def _secret_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield key and path of each file that holds a secret of ours, except lent ID tokens."""
    for name, identity in settings.identities.items():
        for key in (*SECRETS.values(), "next_password_file", "token_file"):
            file = getattr(identity, key)
            if file is not None:
                yield f"identities.{name}.{key}", file
        if identity.egress_proxy.password_file is not None:
            key = f"identities.{name}.egress_proxy.password_file"
            yield key, identity.egress_proxy.password_file
    fleet = settings.fleet
    if fleet is not None:
        yield "fleet.key_file", fleet.key_file
        if fleet.password_file is not None:
            yield "fleet.password_file", fleet.password_file


def _is_open_to_all(file: Path) -> bool:
    """Return whether every user can read the file: its mode and all folders above allow it."""
    try:
        path = file.resolve()
        above = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
        return above and bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def unusable_proxies(settings: Settings) -> list[str]:
    """Return a line for each egress proxy whose password cannot be used. Blocks."""
    proxies = {f"identities.{n}": i.egress_proxy for n, i in settings.identities.items()}
    proxies |= {f"services.{n}": s.egress_proxy for n, s in settings.services.items()}
    problems: list[str] = []
    for key, proxy in proxies.items():
        try:
            build_proxy(f"{key}.egress_proxy", proxy)
        except ConfigError as error:
            problems += error.problems
    return problems


def forgotten_refusals(settings: Settings) -> list[str]:
    """Return a line if a restart forgets which logins IAM has refused. Blocks."""
    folder = settings.state_dir
    with_lock_out = {"password", "application_credential"}
    methods = {identity.method for identity in settings.identities.values()}
    if settings.fleet is not None or not methods & with_lock_out:
        return []
    if folder is None:
        problem = (
            "not set, so refused logins are not remembered over a restart, and a crash loop with a "
            "wrong password can lock the account; name a writable directory that outlives the "
            "process, or use a fleet"
        )
        return [f"state_dir: {problem}"]
    if not os.access(folder, os.W_OK | os.X_OK):
        what = "is not writable for this user" if folder.is_dir() else "is not there"
        problem = (
            "so refused logins are not remembered over a restart; make it, or correct its mode"
        )
        return [f"state_dir: {folder} {what}, {problem}"]
    return []


def placeholders(settings: Settings) -> dict[str, str]:
    """Return identities whose secret file holds what `init` wrote, and a line for each. Blocks."""
    return {
        name: f"identities.{name}.{key}: {file} still holds init's placeholder; write the secret "
        "into it, before the gateway can start"
        for name, identity in settings.identities.items()
        for key in (*SECRETS.values(), "token_file", "id_token_file")
        if (file := getattr(identity, key)) is not None and is_placeholder(file)
    }


def unusable_keys(settings: Settings, *, besides: Collection[str] = ()) -> list[str]:
    """Return a line for each key that cannot be sent as it is. Blocks.

    Identities named in `besides` are passed over.
    """
    problems = []
    for name, identity in settings.identities.items():
        if name in besides:
            continue
        for plain in ("key", "value"):
            value, file = getattr(identity, plain), getattr(identity, SECRETS[plain])
            if value is not None or file is not None:
                read_secret, _ = secret_of(value, file)
                try:
                    key_line(identity.field_name, "", read_secret())
                except LoginError as error:
                    where = plain if file is None else SECRETS[plain]
                    problems.append(f"identities.{name}.{where}: {error}")
        if identity.id_token_file is not None:
            try:
                claims_of(SecretFile(identity.id_token_file).read())
            except LoginError as error:
                problems.append(f"identities.{name}.id_token_file: {error}")
        if identity.method == "ak_sk" and identity.key_origin is None:
            try:
                access_key_reader(identity)[0]()
            except LoginError as error:
                problems.append(f"identities.{name}: {error}")
    return problems


def required(value: _T | None) -> _T:
    """Return `value`; the settings have made sure that it is given."""
    if value is None:
        raise ConfigError(["identities: a required key is missing"])  # the settings' own rule
    return value
