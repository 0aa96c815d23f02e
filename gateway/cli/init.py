"""`init`: writes a first configuration, from a service's URL and a kind of credential."""

import os
import sys
from pathlib import Path

import click

from gateway.cli.configuration import EXIT_CONFIG, exit_with
from gateway.errors import ConfigError
from gateway.settings.template import (
    CHANGE,
    KINDS,
    Question,
    Target,
    answers_to,
    configuration_text,
    target_of,
)
from gateway.settings.values import parse_name


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway init
  modelarts-gateway init --url https://HOST/v2/infers/ID --method api_key --secret-file KEY-FILE
  . ./openrc && modelarts-gateway init --url https://HOST/v1/infers/ID --name iris

\b
In a terminal it asks for what no flag and no OS_* variable says; elsewhere it takes defaults and
marks what is to be changed. It never asks for a secret, and writes none.

\b
Exit codes: 0 written, 2 a flag is wrong, or the file exists."""
)
@click.option(
    "--output",
    default="gateway.yaml",
    show_default=True,
    metavar="FILE",
    help="The file to write; - prints it.",
)
@click.option("--url", envvar="GATEWAY_SERVICE_URL", metavar="URL", help="The service's URL.")
@click.option("--method", type=click.Choice(list(KINDS)), help="The kind of credential.")
@click.option("--name", metavar="NAME", help="The service's name: its path and metric label.")
@click.option(
    "--secret-file", metavar="FILE", help="The file that holds the secret, or will hold it."
)
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a key of the identity; may be repeated.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def command(  # noqa: PLR0917  # click's way
    output: str,
    url: str | None,
    method: str | None,
    name: str | None,
    secret_file: str | None,
    given: tuple[str, ...],
    force: bool,
) -> None:
    """Write a commented configuration that `check` accepts, without any secret in it."""
    file = None if output == "-" else Path(output)
    if file is not None and file.exists() and not force:
        exit_with([f"--output: {file} exists; name another file, or add --force"])
    is_asking = sys.stdin.isatty() and sys.stdout.isatty()
    target = _target(url, is_asking=is_asking)
    method = method or _method(target, is_asking=is_asking)
    kind = KINDS[method]
    known = _values_of(given, kind.questions)

    def ask(question: Question, default: str) -> str:
        if question.key in known:
            return known[question.key]
        if not is_asking:
            return default
        shown = None if default == CHANGE else default
        return str(click.prompt(question.text, default=shown))

    name = _name(name or _default_name(target, is_asking=is_asking))
    told = {q.variable for q in kind.questions if q.key in known}
    environ = {variable: value for variable, value in os.environ.items() if variable not in told}
    answers = answers_to(kind.questions, target, ask, environ)
    secret_file = secret_file or kind.secret_name
    text = configuration_text(name, target, method, answers, secret_file)
    if file is None:
        click.echo(text, nl=False)
        return
    secret = (file.parent / secret_file) if kind.secret_key else None
    _write(file, text, secret)
    _say(file, text, secret, method)


def _target(url: str | None, *, is_asking: bool) -> Target:
    while True:
        if not url and not is_asking:
            exit_with(
                ["--url: required; the service's page shows it, as https://HOST/v2/infers/ID"]
            )
        text = url or str(click.prompt("URL of the service (its page shows it)"))
        try:
            return target_of(text)
        except ValueError as error:
            if url:
                exit_with([f"--url: {error}"])
            click.echo(f"  {error}")


def _method(target: Target, *, is_asking: bool) -> str:
    if os.environ.get("OS_APPLICATION_CREDENTIAL_ID") and target.method == "password":
        usual = "application_credential"
    else:
        usual = target.method
    if not is_asking:
        return usual
    click.echo("How does the gateway log in?")
    for method, kind in KINDS.items():
        click.echo(f"  {method:<24}{kind.text}")
    return str(click.prompt("Kind of credential", type=click.Choice(list(KINDS)), default=usual))


def _default_name(target: Target, *, is_asking: bool) -> str:
    usual = "llm" if target.speaks_openai else "model"
    return str(click.prompt("Name of the service", default=usual)) if is_asking else usual


def _name(name: str) -> str:
    try:
        return parse_name(name)
    except ValueError as error:
        exit_with([f"--name: {error}"])


def _values_of(given: tuple[str, ...], questions: tuple[Question, ...]) -> dict[str, str]:
    keys = [question.key for question in questions]
    values = {}
    for pair in given:
        key, mark, value = pair.partition("=")
        if not mark or key not in keys:
            allowed = ", ".join(keys) or "none with this method"
            exit_with([f"--set: {key!r} is not a key to be set here; allowed: {allowed}"])
        values[key] = value
    return values


def _write(file: Path, text: str, secret: Path | None) -> None:
    """Write both files, or neither: the configuration is loaded before it is kept."""
    from gateway.identity.secret import PLACEHOLDER
    from gateway.settings import load

    made = secret is not None and not secret.exists()
    draft = file.with_name(f"{file.name}.draft")
    try:
        if secret is not None and made:
            with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:  # noqa: PTH123
                stream.write(f"{PLACEHOLDER}\n")
        draft.write_text(text, encoding="utf-8")
        load(file=draft, environ={})
        draft.replace(file)
    except (ConfigError, OSError) as error:
        draft.unlink(missing_ok=True)
        if secret is not None and made:
            secret.unlink(missing_ok=True)
        if isinstance(error, ConfigError):
            exit_with([problem.replace(f"{draft}", f"{file}") for problem in error.problems])
        click.echo(f"{error.filename}: {error.strerror}; correct --output", err=True)
        sys.exit(EXIT_CONFIG)


def _say(file: Path, text: str, secret: Path | None, method: str) -> None:
    from gateway.identity.secret import is_placeholder

    click.echo(f"wrote {file}: method {method}, no secret in it")
    if CHANGE in text:
        click.echo(f"1. in {file}, replace what is marked CHANGE")
    if secret is not None and is_placeholder(secret):
        click.echo(f"2. write the secret into {secret} (it holds a placeholder; mode 0600)")
    click.echo(f"then: modelarts-gateway check --online --config {file}")
