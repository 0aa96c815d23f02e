"""Who the gateway is towards services: the methods, and the keys that each of them takes."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model

from gateway.settings.egress import EgressProxy, plain_text_faults
from gateway.settings.sections import Fault, Section
from gateway.settings.sinks import Sink
from gateway.settings.tls import Tls
from gateway.settings.types import (
    AuthUrl,
    FieldName,
    FieldPrefix,
    Instant,
    OptionalFile,
    ReadableFile,
    Secret,
    Segment,
    ServiceUrl,
    Text,
    parse_list,
)

LoginMethod = Literal[
    "password", "application_credential", "oidc", "api_key", "header", "ak_sk", "file", "none"
]
KeyOrigin = Literal["metadata", "pod"]
LOGIN_KEYS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    # method: keys it needs, further keys it takes
    "password": (
        frozenset({"auth_url", "username", "user_domain"}),
        frozenset({"password", "password_file", "project", "project_id", "project_domain", "tls"})
        | {"egress_proxy", "next_password_file"},
    ),
    "application_credential": (
        frozenset({"auth_url"}),
        frozenset({"id", "name", "username", "user_domain", "secret", "secret_file", "tls"})
        | {"egress_proxy"},
    ),
    "oidc": (
        frozenset({"auth_url", "idp", "id_token_file"}),
        frozenset({"protocol", "project", "project_id", "project_domain", "tls", "egress_proxy"}),
    ),
    "api_key": (frozenset(), frozenset({"key", "key_file", "expires"})),
    "header": (frozenset({"header"}), frozenset({"value", "value_file", "prefix", "expires"})),
    "ak_sk": (
        frozenset(),
        frozenset({"access_key", "access_key_file", "secret_key", "secret_key_file"})
        | {"security_token", "security_token_file", "from", "metadata_url"},
    ),
    "file": (frozenset({"token_file"}), frozenset()),
    "none": (frozenset(), frozenset()),
}
SECRETS: dict[str, str] = {
    # key that only the environment may give: file that may hold the same
    "password": "password_file",
    "secret": "secret_file",
    "key": "key_file",
    "value": "value_file",
    "secret_key": "secret_key_file",
    "security_token": "security_token_file",
}
_ACCESS_KEY_FILES = ("access_key_file", "secret_key_file", "security_token_file")
_WITH_A_CREDENTIAL = frozenset({"sinks"})
"""Keys that every method takes but `none`, and `ak_sk`, whose lines differ by request."""
_BY_NAME = ("name", "username", "user_domain")


class _KeysBeforeFrom(Section):
    method: LoginMethod = "password"
    """How the gateway shows who it is. `password`, `application_credential` and `oidc` (an ID token
    of the cluster's) log in at `auth_url` for a token, `api_key` sends `Authorization: Bearer` and
    a key, `header` any other line, `ak_sk` signs each request with an access key, `file` sends a
    token that another program renews, `none` nothing at all."""
    auth_url: AuthUrl | None = None
    """Root of Keystone's version 3 API, with or without `/v3`. While it cannot be reached,
    callers get 503 as soon as the last token has expired."""
    username: Text | None = None
    """Name of the user, for `password`, and for an application credential by `name`. Use one that
    does nothing else: wrong logins lock it."""
    user_domain: Text | None = None
    """Name of the domain (in Huawei Cloud: of the account) that the user belongs to."""
    password: Secret | None = None
    """The password, from the environment only: a file like this one ends up in a repository."""
    password_file: ReadableFile | None = None
    """File with the password, read again when it changes; one final line break is ignored."""
    next_password_file: OptionalFile | None = None
    """File with a second password, which is tried once when IAM refuses the first: write the next
    one into it before you change it at IAM, and no request is lost. Whichever worked last is tried
    first, until one of the files changes. It may be missing or empty."""
    id: Text | None = None
    """Id of the application credential."""
    name: Text | None = None
    """Name of the application credential, instead of `id`, with `username` and `user_domain`."""
    secret: Secret | None = None
    """Secret of the application credential, from the environment only."""
    secret_file: ReadableFile | None = None
    """File with the secret of the application credential, read again when it changes."""
    idp: Segment | None = None
    """Id of the identity provider that IAM knows the cluster as, for `oidc`."""
    protocol: Segment | None = None
    """Its protocol in Keystone, most often `openid`: a federated login in two steps. Left out:
    Huawei Cloud IAM, in one."""
    id_token_file: ReadableFile | None = None
    """File with the ID token (a JWT), such as a projected service-account token; read for each
    login, so that it may be rotated at any time."""
    key: Secret | None = None
    """The API key, from the environment only."""
    key_file: ReadableFile | None = None
    """File with the API key alone, read again when it changes; one final line break is ignored."""
    header: FieldName | None = None
    """Name of the header field that carries `value`, such as `X-Apig-AppCode`. Callers cannot
    send a field of this name."""
    value: Secret | None = None
    """Value of `header`, from the environment only."""
    value_file: ReadableFile | None = None
    """File with the value of `header`, read again when it changes; one final line break is
    ignored."""
    prefix: FieldPrefix = ""
    """Written before the value, in quotes if it ends with a space: `"Bearer "`."""
    expires: Instant | None = None
    """When the key or value ends, as the console shows it: a date (its first moment, UTC) or a
    date and time. For the metric and its alert only; it is sent until the service refuses it."""
    access_key: Text | None = None
    """Id of the access key (AK), which is no secret."""
    access_key_file: ReadableFile | None = None
    """File with the id of the access key, instead of `access_key`; read again when it changes."""
    secret_key: Secret | None = None
    """The access key's secret (SK), from the environment only."""
    secret_key_file: ReadableFile | None = None
    """File with the access key's secret, read again when it changes."""
    security_token: Secret | None = None
    """What belongs to a temporary access key, from the environment only."""
    security_token_file: ReadableFile | None = None
    """File with the security token of a temporary access key that another program renews; read
    again when it changes."""


if TYPE_CHECKING:

    class _KeysUpToFrom(_KeysBeforeFrom):
        """Where an access key comes from, too: `from`."""

else:  # a word of Python's own cannot be written as an attribute
    _KeysUpToFrom = create_model(
        "_KeysUpToFrom",
        __base__=_KeysBeforeFrom,
        **{
            "from": (
                KeyOrigin | None,
                Field(
                    default=None,
                    description="Where temporary access keys come from, instead of files: "
                    "`metadata` is the cloud server's metadata service (an agency), `pod` the "
                    "cluster's pod identity, by the `HC_CONTAINER_…` variables that it sets.",
                ),
            )
        },
    )


class Identity(_KeysUpToFrom):
    """Who the gateway is towards services, and where its tokens come from."""

    metadata_url: ServiceUrl = "http://169.254.169.254"
    """Root of the metadata service, for `from: metadata`; another one for tests only."""
    token_file: ReadableFile | None = None
    """File with a token, for `file`; read again when it changes."""
    project: Text | None = None
    """Name of the project the token is for, in Huawei Cloud by default the region's name.
    Required unless `project_id` is given: services refuse tokens without a project."""
    project_id: Text | None = None
    """Id of the project, instead of `project`."""
    project_domain: Text | None = Field(default_factory=lambda data: data.get("user_domain"))
    """Name of the domain that `project` belongs to; the user's own when left out."""
    tls: Tls = Tls()
    """TLS towards `auth_url`."""
    egress_proxy: EgressProxy = EgressProxy()
    """The proxy that logins go through; `auth_url` must be https then."""
    sinks: Annotated[tuple[Sink, ...], BeforeValidator(parse_list)] = ()
    """Files that always hold the token in use, for proxies that carry the requests themselves;
    not with methods `none` and `ak_sk`. In the environment as JSON."""

    @property
    def tokens_url(self) -> str:
        """Where tokens are asked for; empty when the method does not log in."""
        return f"{self.auth_url}/auth/tokens" if self.auth_url else ""

    @property
    def key_origin(self) -> KeyOrigin | None:
        """The value of `from`."""
        origin: KeyOrigin | None = getattr(self, "from")  # a word of Python's own
        return origin

    @property
    def field_name(self) -> str:
        """Name of the header field that a key or value goes into; empty for other methods."""
        return "Authorization" if self.method == "api_key" else self.header or ""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield the keys that the method misses or has no use for."""
        method = given.get("method", "password")
        if not isinstance(method, str) or method not in LOGIN_KEYS:
            return  # reported as a value
        needed, further = _keys_of(method)
        for key in cls.model_fields:
            if key in needed and key not in given:
                yield (key,), f"required with method {method}"
            if key in given and key not in needed | further | {"method"}:
                allowed = ", ".join(k for k in cls.model_fields if k in needed | further)
                yield (key,), f"makes no sense with method {method}; allowed: {allowed or 'no key'}"
        yield from plain_text_faults(given, "auth_url")
        yield from cls._secret_contradictions(given, method, further)
        if method in {"password", "oidc"}:
            yield from cls._scope_contradictions(given, method)
        if method == "application_credential":
            yield from cls._credential_contradictions(given)
        if method == "ak_sk":
            yield from cls._access_key_contradictions(given)

    @classmethod
    def _secret_contradictions(
        cls, given: Mapping[str, Any], method: str, taken: frozenset[str]
    ) -> Iterator[Fault]:
        for plain, file in SECRETS.items():
            if plain in taken and plain in given and file in given:
                yield (file,), f"{plain} is given too; keep one of them"
            if plain in taken and not {plain, file} & given.keys() and method != "ak_sk":
                yield (file,), f"required with method {method}, or {plain} from the environment"

    @classmethod
    def _scope_contradictions(cls, given: Mapping[str, Any], method: str) -> Iterator[Fault]:
        if {"protocol", "project"} <= given.keys() and "project_domain" not in given:
            yield ("project_domain",), "required with protocol and project: Keystone wants both"
        if "project" not in given and "project_id" not in given:
            yield (
                ("project",),
                f"required with method {method}, or project_id: services want a project's token",
            )
        if "project_id" in given:
            for key in (k for k in ("project", "project_domain") if k in given):
                yield (key,), "project_id is given too, which says it all; keep one of them"

    @classmethod
    def _credential_contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield what is wrong between an id and a name, which needs to know whose it is."""
        method = "application_credential"
        if "id" in given:
            for key in (k for k in _BY_NAME if k in given):
                yield (key,), f"makes no sense with method {method} and id, which says it all"
        elif "name" in given:
            for key in (k for k in _BY_NAME if k not in given):
                yield (key,), f"required with method {method} and name"
        else:
            yield (
                ("id",),
                f"required with method {method}, or name, username and user_domain",
            )

    @classmethod
    def _access_key_contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield what is wrong between the parts of an access key, and where it comes from."""
        if "from" in given:
            for key in ("access_key", "secret_key", "security_token", *_ACCESS_KEY_FILES):
                if key in given:
                    yield (key,), "from is given too, which brings the whole key; keep one of them"
        else:
            if not {"access_key", "access_key_file"} & given.keys():
                yield (
                    ("access_key",),
                    "required with method ak_sk, or access_key_file, or from: metadata or pod",
                )
            if not {"secret_key", "secret_key_file"} & given.keys():
                yield (
                    ("secret_key_file",),
                    "required with method ak_sk, or secret_key from the environment",
                )
        if {"access_key", "access_key_file"} <= given.keys():
            yield ("access_key_file",), "access_key is given too; keep one of them"
        if "metadata_url" in given and given.get("from") != "metadata":
            yield ("metadata_url",), "makes no sense without from: metadata"


def _keys_of(method: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the keys that a method needs, and further keys that it takes."""
    needed, further = LOGIN_KEYS[method]
    return needed, further if method in {"none", "ak_sk"} else further | _WITH_A_CREDENTIAL
