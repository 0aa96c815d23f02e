"""Real clients of OpenAI-compatible services, through a gateway: one base URL and no key."""

import asyncio
import json
import shlex
import shutil
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from gateway.twin import LLM_ID, Twin
from tests.cloud.serving import TokenGateway, password_identity, token_gateway, until
from tests.support.demo import ENVIRONMENT, ROOT, running_demo
from tests.support.process import run
from tests.support.tools import LONG, lacking, python_with, tool
from tests.support.twin import running_twin

if TYPE_CHECKING:  # half a second, in every worker
    from openai import AsyncOpenAI

HELLO: list[Any] = [{"role": "user", "content": "Hello to you"}]
SAID = "You said: Hello to you"
CHAT: dict[str, Any] = {"model": "twin-llm", "messages": HELLO}
LITELLM = "litellm>=1.80,<2"
QUICK = {"twin-gap": "1ms"}


@pytest.fixture
async def twin() -> AsyncIterator[Twin]:
    async with running_twin() as running:
        yield running


@pytest.fixture(params=["api_key", "password"])
async def gateway(
    request: pytest.FixtureRequest, twin: Twin, tmp_path: Path
) -> AsyncIterator[TokenGateway]:
    """In front of the twin's `llm`, by its API key and by a token."""
    if request.param == "api_key":
        (tmp_path / "key").write_text("twin-api-key")
        identity = {"method": "api_key", "key_file": str(tmp_path / "key")}
    else:
        identity = password_identity(twin.auth_url, tmp_path)
    url = twin.service_url(LLM_ID, version="v2")
    async with token_gateway(url, identity, methods="GET,POST", usage=True) as running:
        await running.has_token()
        yield running


@pytest.fixture
def base_url(gateway: TokenGateway) -> str:
    return f"http://127.0.0.1:{gateway.running.port}/iris/v1"


@pytest.fixture
async def client(base_url: str) -> AsyncIterator["AsyncOpenAI"]:
    """The SDK insists on a key; the gateway drops it."""
    import openai

    async with (
        openai.DefaultAsyncHttpxClient(trust_env=False, verify=False) as transport,
        openai.AsyncOpenAI(
            base_url=base_url, api_key="unused", http_client=transport, max_retries=0
        ) as sdk,
    ):
        yield sdk


async def used(gateway: TokenGateway) -> tuple[float, float, float]:
    """Tokens of input and output, and responses without counts, once all has ended."""
    await gateway.running.settled()
    name = "gateway_llm_tokens_total"
    return (
        gateway.running.sample(name, type="input"),
        gateway.running.sample(name, type="output"),
        gateway.running.sample("gateway_llm_usage_missing_total"),
    )


# PyPI `openai`


async def test_openai_chats(client: "AsyncOpenAI", gateway: TokenGateway) -> None:
    """The answer is whole, and its tokens are counted."""
    done = await client.chat.completions.create(**CHAT)

    assert done.choices[0].message.content == SAID
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (3, 5)
    assert await used(gateway) == (3, 5, 0)


async def test_openai_bounds_what_the_model_says(client: "AsyncOpenAI") -> None:
    """The service heeds `max_tokens`, which passes as it came."""
    done = await client.chat.completions.create(**CHAT, max_tokens=3)

    assert done.choices[0].message.content == "You said: Hello"
    assert done.choices[0].finish_reason == "length"


async def test_openai_streams(client: "AsyncOpenAI", gateway: TokenGateway) -> None:
    """Every token is a chunk; the last one has the usage, which the gateway counts as well."""
    stream = await client.chat.completions.create(
        **CHAT, stream=True, stream_options={"include_usage": True}, extra_query=QUICK
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    assert text == SAID
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert await used(gateway) == (3, 5, 0)
    assert gateway.running.sample("gateway_stream_chunks_total") == len(chunks) + 1  # [DONE]
    assert gateway.running.sample("gateway_stream_pause_seconds_count") == 1


async def test_openai_that_does_not_ask_for_usage_is_counted_as_missing(
    client: "AsyncOpenAI", gateway: TokenGateway
) -> None:
    """A reader of the figures sees how many responses are not in them."""
    stream = await client.chat.completions.create(**CHAT, stream=True, extra_query=QUICK)
    assert [chunk.usage async for chunk in stream][-1] is None

    assert await used(gateway) == (0, 0, 1)


async def test_openai_lists_models(client: "AsyncOpenAI") -> None:
    """By GET, which `methods` must name."""
    assert [model.id async for model in await client.models.list()] == ["twin-llm"]
    assert (await client.models.retrieve("twin-llm")).owned_by == "twin"


async def test_openai_understands_errors_of_the_model_and_of_the_gateway(
    client: "AsyncOpenAI", gateway: TokenGateway
) -> None:
    """As exceptions of its own, with the body that was sent."""
    import openai

    with pytest.raises(openai.NotFoundError, match="'other' does not exist"):
        await client.chat.completions.create(model="other", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="at least one message"):
        await client.chat.completions.create(model="twin-llm", messages=[])
    with pytest.raises(openai.RateLimitError) as throttled:
        await client.chat.completions.create(**CHAT, extra_query={"twin-code": "APIG.0308"})
    assert throttled.value.response.headers["server"] == "api-gateway"
    with pytest.raises(openai.APIStatusError) as refused:
        await client.models.delete("twin-llm")
    assert refused.value.status_code == 405
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["error_code"] == "Gateway.MethodNotAllowed"


async def test_openai_leaves_in_the_middle_of_a_stream(
    client: "AsyncOpenAI", gateway: TokenGateway, twin: Twin
) -> None:
    """The service is left at once as well, and the pool keeps nothing of it."""
    stream = await client.chat.completions.create(
        **CHAT, stream=True, extra_query={"twin-gap": "1m"}
    )
    async with stream:
        first = await anext(aiter(stream))
    assert first.choices[0].delta.role == "assistant"
    await until(lambda: gateway.running.sample("gateway_requests_in_flight") == 0)

    assert gateway.running.sample("gateway_upstream_connections") == 0
    assert gateway.running.sample("gateway_errors_total", error="client_disconnected") == 1
    assert await used(gateway) == (0, 0, 1)


async def test_the_first_token_is_told_apart_from_the_head(
    client: "AsyncOpenAI", gateway: TokenGateway
) -> None:
    """The service sends its head at once, and the first token 300 ms later."""
    stream = await client.chat.completions.create(
        **CHAT, stream=True, extra_query={"twin-first-token": "300ms", **QUICK}
    )
    assert "".join([c.choices[0].delta.content or "" async for c in stream]) == SAID
    await gateway.running.settled()

    first_byte = gateway.running.sample("gateway_upstream_first_byte_seconds_sum")
    first_chunk = gateway.running.sample("gateway_upstream_first_chunk_seconds_sum")
    assert first_chunk - first_byte >= 0.29


# PyPI `httpx`


async def test_httpx_reads_events_as_they_come(base_url: str) -> None:
    """The first event is there while the service waits with the second."""
    async with (
        httpx.AsyncClient(trust_env=False, verify=False) as caller,
        caller.stream(
            "POST",
            f"{base_url}/chat/completions",
            params={"twin-gap": "1m"},
            json={**CHAT, "stream": True},
        ) as response,
        asyncio.timeout(100),
    ):
        assert response.headers["content-type"] == "text/event-stream"
        async with aclosing(cast(AsyncGenerator[str], response.aiter_lines())) as lines:
            event = json.loads((await anext(lines)).removeprefix("data: "))

    assert event["choices"][0]["delta"] == {"role": "assistant", "content": ""}


# PyPI `litellm`, as a library

_LITELLM = """
import json, sys
import litellm
litellm.telemetry = False
call = {
    "model": "openai/twin-llm", "api_base": sys.argv[1], "api_key": "unused",
    "messages": [{"role": "user", "content": "Hello to you"}],
}
whole = litellm.completion(**call)
stream = litellm.completion(**call, stream=True, extra_query={"twin-gap": "1ms"})
text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
print(json.dumps([whole.choices[0].message.content, whole.usage.completion_tokens, text]))
"""


@pytest.mark.skipif(not LONG, reason="installs 380 MB, and takes 20 s of CPU: LONG=1")
@pytest.mark.timeout(400)
async def test_litellm_chats_and_streams(base_url: str, tmp_path: Path) -> None:
    """Pointed at the gateway as at any OpenAI-compatible server."""
    python = await asyncio.to_thread(python_with, ROOT / ".venv" / "litellm", LITELLM)
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    code, said, complaint = await run(
        str(python), "-c", _LITELLM, base_url, env=environment, within_s=300
    )

    assert code == 0, complaint[-2000:]
    assert json.loads(said) == [SAID, 5, SAID]


# What `demo` prints


@pytest.mark.timeout(300)
def test_the_line_that_demo_prints_for_a_stream_works(tmp_path: Path) -> None:
    """Pasted as it stands, by a shell's rules, it ends with the usage and `[DONE]`."""
    curl = tool("curl", "curl")
    with running_demo(tmp_path) as demo:
        printed = (tmp_path / "printed").read_text().replace("\\\n", "")
        [line] = [one for one in printed.splitlines() if "stream_options" in one]
        _, *arguments = shlex.split(line)
        done = subprocess.run(
            [curl, "-s", "--noproxy", "*", *arguments], capture_output=True, text=True, check=True
        )
        assert f"{demo.url}/llm/v1/chat/completions" in arguments

    assert '"usage":{"prompt_tokens":4,' in done.stdout
    assert done.stdout.endswith("data: [DONE]\n\n")


# Node's `fetch`

_NODE = """
const [url] = process.argv.slice(1);
const models = await (await fetch(`${url}/models`)).json();
const response = await fetch(`${url}/chat/completions?twin-gap=1ms`, {
  method: "POST",
  headers: {"content-type": "application/json"},
  body: JSON.stringify({model: models.data[0].id, stream: true,
                        messages: [{role: "user", content: "Hello to you"}]}),
});
let text = "", rest = "";
for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
  const events = (rest + piece).split("\\n\\n");
  rest = events.pop();
  for (const event of events) {
    const data = event.slice("data: ".length);
    if (data !== "[DONE]") text += JSON.parse(data).choices[0].delta.content ?? "";
  }
}
console.log(JSON.stringify({status: response.status, text, rest}));
"""


async def test_nodes_fetch_streams(base_url: str) -> None:
    """Lists the models, then reads a stream to its end."""
    node = shutil.which("node")
    if node is None:
        lacking("node is not installed")
    code, said, complaint = await run(node, "--input-type=module", "-e", _NODE, base_url)

    assert code == 0, complaint[-2000:]
    assert json.loads(said) == {"status": 200, "text": SAID, "rest": ""}
