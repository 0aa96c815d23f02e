"""Variables such as HTTPS_PROXY that the gateway ignores on purpose. Pure."""

from collections.abc import Iterator, Mapping

from gateway.diagnose.findings import Finding, Level, Step

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_OTHERS_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def surroundings(environ: Mapping[str, str]) -> list[Finding]:
    """Return a finding for each that is set, without its value: a proxy's may hold a password."""
    found = list(_ignored(environ))
    if not found:
        text = "no proxy or other variable that the gateway would ignore is set"
        found.append(Finding(Level.OK, "", Step.ENVIRONMENT, text))
    return found


def _ignored(environ: Mapping[str, str]) -> Iterator[Finding]:
    given = {name.upper(): name for name, value in environ.items() if value}
    if proxies := [given[name] for name in _PROXIES if name in given]:
        yield _warning(
            proxies,
            "a token is not shown to proxies, so the gateway connects directly; if there is no "
            "direct way from here, open one to the hosts below",
        )
    if "SSLKEYLOGFILE" in given:
        yield _warning(
            [given["SSLKEYLOGFILE"]],
            "the keys of TLS connections would let anybody read the tokens",
        )
    if bundles := [given[name] for name in _OTHERS_AUTHORITIES if name in given]:
        yield _warning(bundles, "name the authorities to trust in tls.ca_file")


def _warning(names: list[str], text: str) -> Finding:
    told = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} set and ignored: {text}"
    return Finding(Level.WARN, "", Step.ENVIRONMENT, told)
