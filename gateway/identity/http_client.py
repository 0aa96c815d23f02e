"""One HTTP request to IAM, or to another issuer of credentials."""

import ssl
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
from yarl import URL

from gateway.http.connect import EgressProxy, refusal_of
from gateway.identity.answer import Answer
from gateway.identity.refresh import RefreshResult
from gateway.identity.source import LONGEST_TOKEN, LoginError

IAM_REMEDY = "check auth_url, the network between, and IAM's state"
_LONGEST_BODY = 1024 * 1024
_LONGEST_FIELD = LONGEST_TOKEN + 1024  # aiohttp counts the field's name and more


class HttpClient:
    """Asks questions that hold secrets; a new connection for each.

    Invariants: no redirect is followed; no cookie, `.netrc` or proxy of the environment is used;
    nothing that aiohttp says of a failure gets out, because it may quote the token.
    """

    def __init__(
        self,
        whose: str,
        *,
        remedy: str,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        proxy: EgressProxy | None = None,
        connect_timeout_s: float,
        total_timeout_s: float,
    ) -> None:
        """Prepare.

        Args:
            whose: who is asked, for error texts: `IAM`.
            remedy: what to do when there is no answer, for the same texts.
            tls: None: no URL is https.
            server_hostname: the name to verify instead of the URL's.
            proxy: what opens a tunnel to https URLs.
            connect_timeout_s: for name, TCP and TLS.
            total_timeout_s: for all of one question.
        """
        self._whose = whose
        self._remedy = remedy
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._server_hostname = server_hostname
        self._proxy = None if proxy is None else URL(f"http://{proxy.authority}")
        self._proxy_headers = (
            {"Proxy-Authorization": proxy.authorization.decode("ascii")}
            if proxy is not None and proxy.authorization
            else None
        )
        self._timeout = aiohttp.ClientTimeout(total=total_timeout_s, connect=connect_timeout_s)

    async def ask(
        self, method: str, url: URL, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        """Send one request, and return the response, whatever its status.

        Raises:
            LoginError: there is no answer, or none that is HTTP.

        Cancellation: safe; leaves no connection behind.
        """
        try:
            return await self._exchange(method, url, body, headers)
        except (TimeoutError, aiohttp.ClientError) as error:
            problem = self._problem_of(error)
        raise problem  # outside the handler: as its context, aiohttp's text would travel along

    def _problem_of(self, error: TimeoutError | aiohttp.ClientError) -> LoginError:
        """Return the error for a question without an answer, with the remedy."""
        whose, result, remedy = self._whose, RefreshResult.NETWORK, self._remedy
        match error:
            case aiohttp.ClientProxyConnectionError():
                text = f"the egress proxy to {whose} cannot be connected to"
                remedy = "check egress_proxy.url, and whether it is running"
            case aiohttp.ClientHttpProxyError():
                return LoginError(
                    result, f"the egress proxy to {whose}: {refusal_of(error.status)}"
                )
            case TimeoutError():
                result, text = RefreshResult.TIMEOUT, f"{whose} did not respond in time"
            case aiohttp.ClientConnectorDNSError():
                text = f"{whose}'s host name cannot be resolved"
            case aiohttp.ClientConnectorCertificateError():
                text = f"{whose}'s certificate is not trusted"
                remedy = "check tls.ca_file and tls.server_name"
            case aiohttp.ClientSSLError():
                text = f"no TLS connection to {whose} can be made"
            case aiohttp.ClientConnectorError():
                text = f"{whose} cannot be connected to"
            case aiohttp.ClientConnectionError():
                text = f"{whose} closed the connection without a response"
            case _:
                result, text = RefreshResult.BAD_REPLY, f"{whose}'s response is not valid HTTP"
        return LoginError(result, f"{text}: {remedy}")

    async def _exchange(
        self, method: str, url: URL, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    force_close=True, use_dns_cache=False, ssl=self._tls
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,  # we ask for none, so there is no bomb to unpack
                timeout=self._timeout,
                max_field_size=_LONGEST_FIELD,
            ) as session,
            session.request(
                method,
                url,
                data=body,
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": "modelarts-gateway",
                    **headers,
                },
                allow_redirects=False,
                server_hostname=self._server_hostname,
                proxy=self._proxy,
                proxy_headers=self._proxy_headers,
            ) as response,
        ):
            return Answer(
                status=response.status,
                tokens=tuple(response.headers.getall("X-Subject-Token", ())),
                date=response.headers.get("Date"),
                retry_after=response.headers.get("Retry-After"),
                trace=_first(response.headers, ("X-IAM-Trace-Id", "X-Request-Id")),
                body=await self._read_body(response),
            )

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body; of a failure no more than arrives in good order."""
        body = bytearray()
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _LONGEST_BODY:
                    text = (
                        f"{self._whose}'s answer is larger than 1 MiB: check its address, and what "
                        "lies between"
                    )
                    raise LoginError(RefreshResult.BAD_REPLY, text)
        except (aiohttp.ClientError, TimeoutError, LoginError):
            # A 401 whose body is cut still counts as a wrong login at IAM's side.
            if response.status < 300:
                raise
            return b""
        return bytes(body)


def _first(headers: Any, names: Iterable[str]) -> str | None:
    return next((headers[name] for name in names if name in headers), None)
