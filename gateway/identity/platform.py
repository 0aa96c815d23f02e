"""Platforms that hand out temporary access keys: metadata of a cloud server, identity of a pod.

Sources: huaweicloudsdkcore's `MetadataAccessor` and `PodIdentityAccessor`; the manuals of ECS and
CCE.
"""

import asyncio
import ssl
from collections.abc import Callable, Hashable

from pydantic import SecretStr
from yarl import URL

from gateway.identity.access_key import TemporaryKey, temporary_key_of
from gateway.identity.answer import Answer
from gateway.identity.http_client import HttpClient
from gateway.identity.refresh import RefreshResult
from gateway.identity.source import LoginError, is_visible_ascii

POD_URL_VARIABLE = "HC_CONTAINER_CREDENTIALS_FULL_URI"
POD_TOKEN_FILE_VARIABLE = "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105  # a variable's name
"""Both are set by the cluster in pods whose service account has a pod identity."""
_CONNECT_S, _TOTAL_S = 2.0, 5.0
_TOKEN_PATH, _KEY_PATH = "/meta-data/latest/api/token", "/openstack/latest/securitykey"
_TOKEN_LIFE_S = 21600
_NO_AGENCY = b"Please configure Cloud Service Agency first"
_METADATA = "the metadata service"
_POD = "the pod identity agent"
_FROM_ELSEWHERE = (
    "does this run on a cloud server, and may this pod or container reach 169.254.169.254?"
)
_GIVE_AGENCY = (
    "the cloud server has no agency: give it one with access to ModelArts (ECS console, Agency)"
)
_ASSOCIATE = (
    "check that the pod's service account is associated with an agency (CCE, pod identity), and "
    "restart the pod after a change"
)


class MetadataProvider:
    """Asks the metadata service, in its second version (with a token of its own) if it has one."""

    def __init__(self, root: str, tls: ssl.SSLContext | None = None) -> None:
        """Prepare.

        Args:
            root: the service's URL without a path.
            tls: for an https URL.
        """
        self._root = URL(root)
        self._client = HttpClient(
            _METADATA,
            remedy=_FROM_ELSEWHERE,
            tls=tls,
            connect_timeout_s=_CONNECT_S,
            total_timeout_s=_TOTAL_S,
        )

    @property
    def account(self) -> Hashable:
        """See `KeyProvider`."""
        return ("metadata", str(self._root))

    async def obtain(self) -> TemporaryKey:
        """See `KeyProvider`."""
        token = await self._session_token()
        headers = {} if token is None else {"X-Metadata-Token": token}
        answer = await self._ask("GET", _KEY_PATH, headers)
        if answer.status == 404 or (answer.status == 401 and _NO_AGENCY in answer.body):
            raise _refused(_METADATA, answer, _GIVE_AGENCY)
        if answer.status != 200:
            raise _refused(
                _METADATA, answer, "try again, and look at the server's metadata options"
            )
        return temporary_key_of(answer, _METADATA)

    async def _session_token(self) -> str | None:
        """Return a token for the second version; None where there is only the first."""
        life = {"X-Metadata-Token-Ttl-Seconds": str(_TOKEN_LIFE_S)}
        answer = await self._ask("PUT", _TOKEN_PATH, life)
        if answer.status in {404, 405, 503}:
            return None
        token = answer.body.decode("latin-1").strip()
        if answer.status != 200 or not is_visible_ascii(token):
            raise _refused(_METADATA, answer, "it gives no token of its own; " + _FROM_ELSEWHERE)
        return token

    async def _ask(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        return await self._client.ask(method, self._root.with_path(path), None, headers)


class PodProvider:
    """Asks the agent that a cluster runs for pods with an identity."""

    def __init__(
        self, url: str, read_token: Callable[[], SecretStr], tls: ssl.SSLContext | None = None
    ) -> None:
        """Prepare.

        Args:
            url: the agent's.
            read_token: called in a thread each time, since the token is rotated.
            tls: for an https URL.
        """
        self._url = URL(url)
        self._read_token = read_token
        self._client = HttpClient(
            _POD,
            remedy=_ASSOCIATE,
            tls=tls,
            connect_timeout_s=_CONNECT_S,
            total_timeout_s=_TOTAL_S,
        )

    @property
    def account(self) -> Hashable:
        """See `KeyProvider`."""
        return ("pod", str(self._url))

    async def obtain(self) -> TemporaryKey:
        """See `KeyProvider`."""
        token = (await asyncio.to_thread(self._read_token)).get_secret_value().strip()
        if not is_visible_ascii(token):
            text = f"the file that {POD_TOKEN_FILE_VARIABLE} names holds no token: {_ASSOCIATE}"
            raise LoginError(RefreshResult.BAD_REPLY, text)
        headers = {"Authorization": token, "Content-Type": "application/json"}
        answer = await self._client.ask("POST", self._url, b"{}", headers)
        if answer.status != 200:
            raise _refused(_POD, answer, _ASSOCIATE)
        return temporary_key_of(answer, _POD)


def _refused(whose: str, answer: Answer, remedy: str) -> LoginError:
    """Return the error for an answer without a key. Asking again locks nobody out."""
    text = f"{whose} gives no access key (status {answer.status}): {remedy}"
    return LoginError(RefreshResult.BAD_REPLY, text)
