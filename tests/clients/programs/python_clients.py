"""Python's clients, each as its documentation shows it: CLIENT URL FILE."""

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path


def say(*words: object) -> None:
    print(*words, flush=True)


def say_events(lines: Iterable[str]) -> None:
    for line in lines:
        if line:
            say("event", line)


def with_requests(url: str, file: Path) -> None:
    import requests

    with requests.Session() as session:
        for call in range(5):
            answer = session.post(f"{url}/call", data=f'{{"n":{call}}}', timeout=60)
            say("call", answer.status_code, answer.text)
        with file.open("rb") as body:
            answer = session.post(f"{url}/upload", data=body, timeout=60)
        say("upload", answer.status_code, answer.text)
        with session.get(f"{url}/stream", stream=True, timeout=60) as answer:
            say_events(answer.iter_lines(chunk_size=None, decode_unicode=True))


def with_httpx(url: str, file: Path) -> None:
    import httpx

    with httpx.Client() as client:
        for call in range(5):
            answer = client.post(f"{url}/call", content=f'{{"n":{call}}}')
            say("call", answer.status_code, answer.text)
        answer = client.post(f"{url}/upload", content=file.read_bytes())
        say("upload", answer.status_code, answer.text)
        with client.stream("GET", f"{url}/stream") as answer:
            say_events(answer.iter_lines())


def with_urllib3(url: str, file: Path) -> None:
    import urllib3

    pool = urllib3.PoolManager(retries=False)
    for call in range(5):
        answer = pool.request("POST", f"{url}/call", body=f'{{"n":{call}}}')
        say("call", answer.status, answer.data.decode())
    answer = pool.request("POST", f"{url}/upload", body=file.read_bytes())
    say("upload", answer.status, answer.data.decode())
    events = pool.request("GET", f"{url}/stream", preload_content=False)
    for piece in events.stream(None):
        say_events(piece.decode().split("\n"))


def with_aiohttp(url: str, file: Path) -> None:
    asyncio.run(_with_aiohttp(url, file.read_bytes()))


async def _with_aiohttp(url: str, body: bytes) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        for call in range(5):
            async with session.post(f"{url}/call", data=f'{{"n":{call}}}') as answer:
                say("call", answer.status, await answer.text())
        async with session.post(f"{url}/upload", data=body, expect100=True) as answer:
            say("upload", answer.status, await answer.text())
        async with session.get(f"{url}/stream") as answer:
            async for line in answer.content:
                say_events([line.decode().strip()])


def with_openai(url: str, file: Path) -> None:
    import openai

    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        for call in range(5):
            answer = client.chat.completions.with_raw_response.create(
                model="any", messages=[{"role": "user", "content": f'{{"n":{call}}}'}]
            )
            say("call", answer.status_code, answer.parse().choices[0].message.content)
        sent = client.files.with_raw_response.create(file=file, purpose="batch")
        say("upload", sent.status_code, sent.parse().id)
        for chunk in client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "go on"}], stream=True
        ):
            say_events([f"data: {chunk.choices[0].delta.content}"])


if __name__ == "__main__":
    globals()[f"with_{sys.argv[1]}"](sys.argv[2], Path(sys.argv[3]))
