"""Tries a configuration against IAM and the network: connects everywhere, logs in per identity.

Nothing here shows a token or a secret, and no login is made that could only lock an account.
"""

import asyncio
from collections.abc import Hashable, Iterator
from datetime import UTC, datetime

from gateway.assembly.egress import build_proxy
from gateway.assembly.identities import BuiltIdentity, build_identity
from gateway.assembly.services import build_origin
from gateway.assembly.tls import tls_context
from gateway.clock import wall_clock
from gateway.diagnose.findings import Finding, Level, Step, duration_text, has_failed
from gateway.diagnose.reachability import walk
from gateway.errors import ConfigError
from gateway.identity.id_token import Claims, claims_of
from gateway.identity.refresh import RefreshResult
from gateway.identity.source import Login, LoginError, TokenFacts
from gateway.settings import Identity, Service, Settings
from gateway.settings.addresses import parse_url
from gateway.settings.identity import SECRETS

LARGEST_SKEW_S = 30.0
"""Seconds; with more skew, log times and certificate checks are wrong. `Date` has whole seconds."""
SOON_S = 14 * 86400.0
"""A key that expires sooner gets a warning, as from the alert GatewayKeyExpiring."""
_CONNECT_TO_IAM_S = 5.0
_LOCAL_METHODS = frozenset({"file", "api_key", "header"})
"""Methods whose credential is in a file or the environment, so that no login is made."""
_SECRET_FILES = (*SECRETS.values(), "token_file", "id_token_file")


async def examine(settings: Settings) -> list[Finding]:
    """Log in with each identity, one after the other, and connect to each service.

    Returns all warnings and failures, and one finding for each identity and service that is good.

    Cancellation: safe; leaves no connection behind.
    """
    findings: list[Finding] = []
    refused: set[Hashable] = set()
    for name, identity in settings.identities.items():
        found, _ = await examine_identity(name, identity, refused)
        findings += [f for f in found if f.level is not Level.OK or f.step is Step.LOGIN]
    ways = await asyncio.gather(
        *(examine_way(name, service) for name, service in settings.services.items())
    )
    for (name, service), found in zip(settings.services.items(), ways, strict=True):
        findings += _in_short(name, service, found)
    return findings


async def log_in(name: str, identity: Identity) -> Login:
    """Log in once.

    Raises:
        ConfigError: a certificate, secret or token file cannot be used; nobody was asked.
        LoginError: IAM refuses, or cannot be asked.
    """
    source = build_identity(name, identity).source
    try:
        await source.cache_key()  # reads the secret
        if identity.method in _LOCAL_METHODS:
            return await source.fetch()
    except LoginError as error:
        raise ConfigError([f"identities.{name}: {error}"]) from None
    return await source.fetch()


async def examine_identity(
    name: str, identity: Identity, refused: set[Hashable], *, spare: str = ""
) -> tuple[list[Finding], Login | None]:
    """Read the secret, connect to IAM and log in once; stop at the first step that fails.

    Args:
        name: of the identity.
        identity: its settings.
        refused: accounts that IAM has refused; they are left alone, and this one is added to them
            if it is refused.
        spare: why no login is to be made even if the steps before it succeed; empty to log in.

    Returns:
        What was found, and the login if there is one.

    Cancellation: safe; leaves no connection behind.
    """
    key = f"identities.{name}"
    built = build_identity(name, identity)
    account = built.source.account
    if account in refused:
        text = "not tried: the same account was refused above, and refused logins lock it"
        return [Finding(Level.FAIL, key, Step.LOGIN, text)], None
    findings = await _examine_secret(key, identity, built)
    if identity.auth_url is not None:
        findings += await _examine_way_to_iam(key, identity, identity.auth_url)
    if has_failed(findings):
        return findings, None
    if spare and identity.auth_url is not None:
        refused.add(account)
        return [*findings, Finding(Level.FAIL, key, Step.LOGIN, spare)], None
    try:
        login = await built.source.fetch()
    except LoginError as error:
        if error.result is RefreshResult.REFUSED:
            refused.add(account)
        if identity.method in _LOCAL_METHODS:
            return [Finding(Level.FAIL, key, Step.SECRET, str(error), is_local=True)], None
        step = Step.SCOPE if error.is_scope else Step.LOGIN
        text = f"{error.result}: {error}"
        findings.append(Finding(Level.FAIL, key, step, text, code=error.code))
        findings += examine_skew(key, error.skew_s, "IAM")
        return findings, None
    findings += _login_findings(key, login)
    findings += examine_skew(key, login.skew_s, "IAM")
    return findings, login


async def examine_way(name: str, service: Service) -> list[Finding]:
    """Connect to a service and leave.

    Cancellation: safe; leaves no connection behind.
    """
    origin = build_origin(name, service)
    return await walk(
        f"services.{name}",
        origin.host,
        origin.port,
        tls=origin.tls,
        server_name=origin.server_name,
        limit_s=origin.connect_timeout_s,
        proxy=origin.proxy,
    )


def examine_skew(key: str, skew_s: float | None, whose: str) -> Iterator[Finding]:
    """Yield a finding on our clock, `skew_s` ahead of the clock of `whose`; None: unknown."""
    if skew_s is None:
        return
    if abs(skew_s) <= LARGEST_SKEW_S:
        text = f"this machine's clock is within {LARGEST_SKEW_S:g} s of {whose}'s"
        yield Finding(Level.OK, key, Step.CLOCK, text)
        return
    side = "ahead of" if skew_s > 0 else "behind"
    text = (
        f"this machine's clock is {duration_text(abs(skew_s))} {side} {whose}'s: tokens do not "
        "suffer, and signatures are corrected; certificates and logs suffer: synchronise it (NTP)"
    )
    yield Finding(Level.WARN, key, Step.CLOCK, text)


async def _examine_secret(key: str, identity: Identity, built: BuiltIdentity) -> list[Finding]:
    """Read the secret; warn if it has the marks of a mistake, such as white space around it."""
    file = next(filter(None, (getattr(identity, key) for key in _SECRET_FILES)), None)
    given = next(filter(None, (getattr(identity, key) for key in SECRETS)), None)
    try:
        contents = [await asyncio.to_thread(one.read) for one in built.secret_files]
        if identity.id_token_file is not None:
            return [_id_token_finding(key, claims_of(contents[0]))]
        if file is not None and given is None:
            given = contents[0]
    except LoginError as error:
        return [Finding(Level.FAIL, key, Step.SECRET, str(error), is_local=True)]
    if given is None:
        return []
    where = f"the file {file}" if file is not None else "the environment"
    if (
        identity.method not in _LOCAL_METHODS
        and given.get_secret_value() != given.get_secret_value().strip()
    ):
        text = (
            f"the secret from {where} begins or ends with white space, which counts: write it "
            "without, unless it is meant (printf instead of echo)"
        )
        return [Finding(Level.WARN, key, Step.SECRET, text)]
    return [Finding(Level.OK, key, Step.SECRET, f"read from {where}")]


def _id_token_finding(key: str, claims: Claims) -> Finding:
    """Return what an ID token claims; whether that is true, IAM decides."""
    if claims.expires_at is None:
        return Finding(Level.OK, key, Step.SECRET, f"ID token without expiry: {claims}")
    left_s = claims.expires_at - wall_clock()
    if left_s <= 0:
        text = (
            f"the ID token has expired {duration_text(-left_s)} ago: what writes id_token_file "
            f"must rotate it, as the kubelet does with a projected token ({claims})"
        )
        return Finding(Level.FAIL, key, Step.SECRET, text, is_local=True)
    end = datetime.fromtimestamp(claims.expires_at, UTC).isoformat()
    text = f"ID token: {claims}, exp {end} (in {duration_text(left_s)})"
    return Finding(Level.OK, key, Step.SECRET, text)


async def _examine_way_to_iam(key: str, identity: Identity, auth_url: str) -> list[Finding]:
    """Connect to IAM before any login is spent."""
    url = parse_url(auth_url)
    return await walk(
        key,
        url.host,
        url.port,
        tls=tls_context(f"{key}.tls", identity.tls) if url.scheme == "https" else None,
        server_name=identity.tls.server_name,
        limit_s=_CONNECT_TO_IAM_S,
        proxy=build_proxy(f"{key}.egress_proxy", identity.egress_proxy),
    )


def _login_findings(key: str, login: Login) -> Iterator[Finding]:
    facts = login.facts
    if facts is None:
        yield Finding(Level.OK, key, Step.LOGIN, "no token is sent")
        return
    if login.credential.signs:
        yield Finding(Level.OK, key, Step.LOGIN, _access_key_text(facts))
        return
    if not login.credential.renewable:
        yield _key_finding(key, facts)
        return
    token = f"token of {facts.length} bytes"
    if facts.user is None:
        text = f"{token}; whose it is, and until when, is known to what writes the file"
        yield Finding(Level.OK, key, Step.LOGIN, text)
        return
    text = (
        f"logged in as {facts.user} of {facts.domain} for project {facts.project}; "
        f"roles: {', '.join(facts.roles) or 'none'}; {token}"
    )
    yield Finding(Level.OK, key, Step.LOGIN, text)
    text = f"the token is for project {facts.project} (id {facts.project_id})"
    yield Finding(Level.OK, key, Step.SCOPE, text)


def _access_key_text(facts: TokenFacts) -> str:
    if facts.expires_at is None:
        return f"{facts.user}; whether it is good, only a service can tell"
    left_s = facts.expires_at.timestamp() - wall_clock()
    return f"temporary {facts.user}, for another {duration_text(left_s)}"


def _key_finding(key: str, facts: TokenFacts) -> Finding:
    """Return what is known of a key; whether it is good, only a service can tell."""
    text = f"key of {facts.length} bytes, fingerprint {facts.fingerprint}"
    if facts.expires_at is None:
        hint = "; set `expires` to the date that the console shows, and an alert will warn of it"
        return Finding(Level.OK, key, Step.LOGIN, text + hint)
    left_s = facts.expires_at.timestamp() - wall_clock()
    day = facts.expires_at.date().isoformat()
    if left_s <= 0:
        text = f"{text}; it has ended on {day}, says `expires`: have a new one issued"
        return Finding(Level.WARN, key, Step.LOGIN, text)
    if left_s < SOON_S:
        text = f"{text}; it ends in {duration_text(left_s)} ({day}): have a new one issued"
        return Finding(Level.WARN, key, Step.LOGIN, text)
    return Finding(Level.OK, key, Step.LOGIN, f"{text}; it ends in {duration_text(left_s)} ({day})")


def _in_short(name: str, service: Service, found: list[Finding]) -> Iterator[Finding]:
    """Yield one finding if all steps succeeded, otherwise those that did not."""
    if not has_failed(found):
        way = "over TLS" if service.scheme == "https" else "without TLS"
        text = f"connected to {service.host}:{service.port} {way}"
        yield Finding(Level.OK, f"services.{name}", Step.TCP, text)
    yield from (finding for finding in found if finding.level is not Level.OK)
