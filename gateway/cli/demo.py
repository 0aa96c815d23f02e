"""`demo`: the stand-in cloud and a gateway in one process, and `curl` lines that work."""

import os
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from gateway.assembly.gateway import build_gateway
from gateway.cli.configuration import load_or_exit
from gateway.lifecycle.gateway import Gateway
from gateway.lifecycle.run import run_until_told, set_up_logging
from gateway.lifecycle.signals import Signals
from gateway.observe.access_log import AccessLog
from gateway.settings import load
from gateway.settings.effective import effective
from gateway.settings.environment import LOG_FORMAT_VARIABLE
from gateway.twin import IMAGE_ID, IRIS_ID, LLM_ID, SLOW_ID, Account, Twin

_TOKEN_TTL_S = 300.0

_LINES = """\
stand-in cloud  {twin}
gateway         {data}
admin           {admin}
status page     {admin}/status

Paste these into another terminal. They contain no token: the gateway adds it.

  curl -d '{{"data":{{"req_data":[{{"sepal_length":3,"sepal_width":1,"petal_length":2.2,\
"petal_width":4}}]}}}}' -H 'Content-type: application/json' {data}/iris

  curl -d '{{"data":{{"req_data":[{{"sepal_length":5.1,"sepal_width":3.5,"petal_length":1.4,\
"petal_width":0.2}}]}}}}' -H 'Content-type: application/json' {data}/v1/infers/{iris}

  curl -F 'images=@{picture}' {data}/image

  curl -N -d '{{"model":"twin-llm","stream":true,"stream_options":{{"include_usage":true}},\
"messages":[{{"role":"user","content":"Hello, who are you?"}}]}}' \
-H 'Content-type: application/json' {data}/llm/v1/chat/completions

  seq 200 | xargs -P 40 -I@ curl -so /dev/null -w '%{{http_code}} in %{{time_total}} s\\n' -d x \
{data}/slow     # 4 at a time, 50 ms each; 30 more wait in a queue, others get 503 at once

What the gateway counted: one login for all requests (tokens live 5 minutes here):

  curl -s {admin}/metrics | grep -E 'gateway_(requests|token_refreshes|llm_tokens)_total.* [1-9]'
  curl -s '{admin}/readyz?verbose'

Stop with Ctrl-C. Below: the log, and one line of JSON per request.
"""


@click.command(
    epilog="""\b
Examples:
  modelarts-gateway demo
  modelarts-gateway demo --listen 127.0.0.1:8000 --admin-listen 127.0.0.1:9000"""
)
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="ADDRESS",
    help="Where callers connect.",
)
@click.option(
    "--admin-listen",
    default="127.0.0.1:9090",
    show_default=True,
    metavar="ADDRESS",
    help="Where probes and Prometheus connect.",
)
def command(listen: str, admin_listen: str) -> None:
    """Run the stand-in cloud and a gateway on loopback, and print curl lines that work.

    Services: `iris` (JSON in, predictresult out), `image` (form field `images`), `llm`
    (OpenAI-compatible, streams) and `slow` (4 requests at a time).
    """
    signals = Signals()
    os.environ.setdefault(LOG_FORMAT_VARIABLE, "text")  # for people, also through a pipe
    set_up_logging()
    twin = Twin(token_ttl_s=_TOKEN_TTL_S)

    with tempfile.TemporaryDirectory(prefix="modelarts-gateway-demo-") as folder:
        picture = Path(folder) / "test.png"
        picture.write_bytes(_picture())

        @asynccontextmanager
        async def build(access_log: AccessLog) -> AsyncIterator[Gateway]:
            await twin.start()
            account = Account()
            environ = {
                "OS_AUTH_URL": twin.auth_url,
                "OS_USERNAME": account.user,
                "OS_PASSWORD": account.password,
                "OS_USER_DOMAIN_NAME": account.domain,
                "OS_PROJECT_NAME": account.project,
                "GATEWAY_LISTEN": listen,
                "GATEWAY_ADMIN_LISTEN": admin_listen,
                "GATEWAY_SERVICES__IRIS__URL": twin.service_url(IRIS_ID),
                "GATEWAY_SERVICES__IMAGE__URL": twin.service_url(IMAGE_ID),
                "GATEWAY_SERVICES__LLM__URL": twin.service_url(LLM_ID, version="v2"),
                "GATEWAY_SERVICES__LLM__METHODS": "GET,POST",
                "GATEWAY_SERVICES__LLM__USAGE": "true",
                "GATEWAY_SERVICES__SLOW__URL": twin.service_url(SLOW_ID),
                "GATEWAY_SERVICES__SLOW__MAX_IN_FLIGHT": "4",
                "GATEWAY_SERVICES__SLOW__QUEUE__DEPTH": "30",
            }
            try:
                loaded = load_or_exit(None, environ=environ)
                yield build_gateway(
                    loaded.settings,
                    access_log,
                    configuration=effective(loaded),
                    read=lambda: load(file=None, environ=environ),
                )
            finally:
                await twin.stop()

        def announce(data_url: str, admin_url: str) -> None:
            click.echo(
                _LINES.format(
                    twin=twin.url, data=data_url, admin=admin_url, picture=picture, iris=IRIS_ID
                )
            )

        run_until_told(build, announce, signals)


def _picture() -> bytes:
    """Draw a small PNG, mostly blue."""
    width, height = 64, 48
    rows = b"".join(
        b"\0" + b"".join(bytes((20, 40 + 2 * y, 200)) for _ in range(width)) for y in range(height)
    )
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
