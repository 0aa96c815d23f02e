"""A first configuration, as commented YAML, for a service's URL and a kind of credential. Pure.

It holds no secret, and no value that could not be loaded.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.settings.addresses import Url, parse_url

CHANGE = "CHANGE-ME"
"""Stands for what is not known."""
_CALLS = re.compile(r"(.*?)/v1/(chat/completions|completions|embeddings|models)/?")
_REGION = re.compile(r"(?:^|[.-])((?:ap|cn|la|na|af|me|eu|sa|tr|ru)-[a-z]+-[0-9]+)(?:[.-]|$)")


@dataclass(frozen=True, slots=True)
class Question:
    """One value of an identity that only its owner knows."""

    key: str
    text: str
    """What is asked."""
    variable: str = ""
    """OpenStack's, which may hold it."""
    default: str = CHANGE
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of credential, as `init` offers it."""

    text: str
    """What it is, for those who choose."""
    questions: tuple[Question, ...]
    secret_key: str = ""
    """Key of the file with its secret; empty if there is none."""
    secret_name: str = ""
    """What that file is called unless told otherwise."""
    fixed: tuple[tuple[str, str], ...] = ()
    """Further keys, as they are written."""
    remarks: tuple[str, ...] = ()
    """Comment lines at the end: what else may be set."""


_IAM = "https://iam.{region}.myhuaweicloud.com/v3"
_AUTH_URL = Question("auth_url", "URL of IAM or Keystone", "OS_AUTH_URL", _IAM)
_PROJECT = Question(
    "project", "Project (in Huawei Cloud: the region's name)", "OS_PROJECT_NAME", "{region}",
    "or project_id",
)  # fmt: skip
KINDS: Mapping[str, Kind] = {
    "api_key": Kind(
        "an API key (services of the new version, MaaS)",
        (),
        "key_file",
        "api-key",
        remarks=("expires: 2027-01-31          # as the console shows it; an alert warns before",),
    ),
    "oidc": Kind(
        "the cluster's ID token: no password at all",
        (
            _AUTH_URL,
            Question("idp", "Identity provider of the cluster in IAM", "OS_IDENTITY_PROVIDER"),
            _PROJECT,
        ),
        "id_token_file",
        "id-token",
        remarks=(
            "protocol: openid             # for Keystone; then project_domain is needed, too",
        ),
    ),
    "password": Kind(
        "user and password of IAM or Keystone",
        (
            _AUTH_URL,
            Question(
                "username", "User; one that does nothing else", "OS_USERNAME",
                comment="wrong logins lock it",
            ),
            Question(
                "user_domain", "The user's domain (in Huawei Cloud: the account)",
                "OS_USER_DOMAIN_NAME",
            ),
            _PROJECT,
        ),
        "password_file",
        "iam-password",
    ),
    "application_credential": Kind(
        "an application credential of Keystone",
        (
            _AUTH_URL,
            Question("id", "Id of the application credential", "OS_APPLICATION_CREDENTIAL_ID"),
        ),
        "secret_file",
        "application-secret",
    ),
    "header": Kind(
        "an AppCode, or any other header field",
        (
            Question(
                "header", "Name of the header field", default="X-Apig-AppCode",
                comment="callers cannot send it",
            ),
        ),
        "value_file",
        "app-code",
        remarks=('prefix: "Bearer "            # what stands before the value',),
    ),
    "ak_sk": Kind(
        "an access key, with which each request is signed (services of the old version)",
        (Question("access_key", "Id of the access key (AK)"),),
        "secret_key_file",
        "secret-key",
        remarks=("from: metadata               # or pod, instead of the two: temporary keys",),
    ),
    "file": Kind(
        "a token that another program writes to a file", (), "token_file", "token"
    ),
    "none": Kind("nothing: the service is open", ()),
}  # fmt: skip
"""By method, in the order in which they are worth a thought."""


@dataclass(frozen=True, slots=True)
class Target:
    """A service, as its URL tells."""

    url: Url
    speaks_openai: bool
    """The URL ends with one of OpenAI's calls, which has been taken off, or is MaaS."""

    @property
    def method(self) -> str:
        """The kind of credential that such a service most likely takes."""
        is_new = self.url.path.startswith(("/v2/infers", "/v2/infer/"))
        is_maas = self.url.host.endswith("modelarts-maas.com")
        return "api_key" if is_new or is_maas else "password"

    @property
    def region(self) -> str:
        """The region in the host's name, or one that exists."""
        found = _REGION.search(self.url.host)
        return found[1] if found else "ap-southeast-1"


def target_of(url: str) -> Target:
    """Return what a URL tells; one of OpenAI's calls at its end is taken off.

    Raises:
        ValueError: it is no URL.
    """
    parts = parse_url(url)
    found = _CALLS.fullmatch(parts.path)
    is_maas = parts.host.endswith("modelarts-maas.com")
    if not found:
        return Target(parts, speaks_openai=is_maas)
    return Target(Url(parts.scheme, parts.host, parts.port, found[1]), speaks_openai=True)


def answers_to(
    questions: tuple[Question, ...],
    target: Target,
    ask: Callable[[Question, str], str],
    environ: Mapping[str, str],
) -> dict[str, str]:
    """Return a value for each question: of the environment, or of `ask`, which gets a default."""
    return {
        question.key: environ.get(question.variable)
        or ask(question, question.default.format(region=target.region))
        for question in questions
    }


def configuration_text(
    name: str, target: Target, method: str, answers: Mapping[str, str], secret_file: str
) -> str:
    """Return the file's content.

    Args:
        name: of the service.
        target: the service.
        method: one of `KINDS`.
        answers: values of the identity's keys.
        secret_file: its path, for methods with a secret.
    """
    kind = KINDS[method]
    lines = [
        "# Configuration of modelarts-gateway. Every other key, with its default and its meaning:",
        "# config/gateway.yaml and config/README.md. Then: modelarts-gateway check --online",
        "",
        "# listen: 127.0.0.1:8080         # where callers connect; every program that can may call",
        "# admin_listen: 127.0.0.1:9090   # probes, metrics, status page",
        "",
        "identities:",
        "  default:",
        _line("method", method, kind.text),
    ]
    comments = {question.key: question.comment for question in kind.questions}
    lines += [_line(key, value, comments.get(key, "")) for key, value in answers.items()]
    lines += [_line(key, value, "") for key, value in kind.fixed]
    if kind.secret_key:
        lines.append(_line(kind.secret_key, secret_file, "holds the secret; never write it here"))
    lines += [f"    # {remark}" for remark in kind.remarks]
    methods = "[GET, POST]" if target.speaks_openai or method == "api_key" else "[POST]"
    why = "GET: clients of OpenAI's protocol ask for /v1/models" if "GET" in methods else ""
    lines += [
        "",
        "services:",
        f"  {name}:",
        _line("url", str(target.url), f"at /{name}, and at the URL's own path"),
        f"    methods: {methods}".ljust(40) + (f"  # {why}" if why else ""),
        "    # max_body: 12MiB              # larger: 413",
        "    # timeouts: {first_byte: 40s}  # until the response begins",
    ]
    if target.speaks_openai:
        lines.append(f"    # base_url for clients: http://127.0.0.1:8080/{name}/v1")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _line(key: str, value: str, comment: str) -> str:
    plain = re.fullmatch(r"[A-Za-z0-9/][A-Za-z0-9_./:@-]*", value) and not value.isdigit()
    shown = value if plain and not value.endswith(":") else json.dumps(value, ensure_ascii=False)
    if CHANGE in value:
        comment = f"CHANGE{f'; {comment}' if comment else ''}"
    text = f"    {key}: {shown}"
    return f"{text:<40}  # {comment}" if comment else text
