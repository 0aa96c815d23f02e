"""The `llm` model: repeats what it is told, in the format of OpenAI and vLLM. Pure.

A token is a word with the white space before it.
"""

import json
import re
from typing import Any, Final

from gateway.twin.model import Call
from gateway.twin.reply import MODELARTS, Reply, json_body

MODEL: Final = "twin-llm"
_CREATED: Final = 1_767_225_600  # 2026-01-01T00:00:00Z
_MAX_TOKENS: Final = 4096
_TOKEN: Final = re.compile(r"\s*\S+")
_SILENCE: Final = "You said nothing."


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


def answer(call: Call) -> Reply:
    """Answer `/v1/chat/completions` and `/v1/models` below the service's path."""
    path = "/" + call.target.partition("?")[0].split("/", 4)[-1].strip("/")
    try:
        if path == "/v1/chat/completions":
            _require(call, "POST")
            return _chat(call)
        if path == "/v1/models":
            _require(call, "GET")
            return _reply(200, {"object": "list", "data": [_model()]})
        if path == f"/v1/models/{MODEL}":
            _require(call, "GET")
            return _reply(200, _model())
        raise _RefusedError(404, "Not Found: ask for /v1/chat/completions or /v1/models")
    except _RefusedError as error:
        kinds = {404: "NotFoundError", 405: "MethodNotAllowedError"}
        return _reply(
            error.status,
            {
                "error": {
                    "message": str(error),
                    "type": kinds.get(error.status, "BadRequestError"),
                    "param": error.param,
                    "code": error.status,
                }
            },
        )


def _require(call: Call, method: str) -> None:
    if call.method != method:
        raise _RefusedError(405, f"Method Not Allowed: use {method}")


def _model() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": _CREATED, "owned_by": "twin"}


def _chat(call: Call) -> Reply:
    wanted = _wanted(call.body)
    model = wanted.get("model")
    if model != MODEL:
        raise _RefusedError(404, f"The model {model!r} does not exist; use {MODEL}", "model")
    texts = _texts(wanted.get("messages"))
    tokens = _TOKEN.findall(f"You said: {texts[-1]}" if texts[-1].strip() else _SILENCE)
    most = _most_tokens(wanted)
    finish = "length" if len(tokens) > most else "stop"
    tokens = tokens[:most]
    given = sum(len(_TOKEN.findall(text)) for text in texts)
    usage = {
        "prompt_tokens": given,
        "completion_tokens": len(tokens),
        "total_tokens": given + len(tokens),
    }
    identity = {"id": f"chatcmpl-{call.request_id}", "created": _CREATED, "model": MODEL}
    if wanted.get("stream"):
        options = wanted.get("stream_options")
        is_counted = isinstance(options, dict) and bool(options.get("include_usage"))
        return _stream(identity, tokens, finish, usage if is_counted else None)
    message = {"role": "assistant", "content": "".join(tokens)}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return _reply(
        200, {**identity, "object": "chat.completion", "choices": [choice], "usage": usage}
    )


def _stream(
    identity: dict[str, Any], tokens: list[str], finish: str, usage: dict[str, int] | None
) -> Reply:
    """Return one event per token; with `usage` one more that has it, and null in all others."""
    head = {**identity, "object": "chat.completion.chunk"}
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": token}, None) for token in tokens]
    deltas.append(({}, finish))
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    if usage is not None:
        for chunk in chunks:
            chunk["usage"] = None
        chunks.append({**head, "choices": [], "usage": usage})
    events = [b"data: %b\n\n" % json_body(chunk) for chunk in chunks]
    body = b"".join([*events, b"data: [DONE]\n\n"])
    return Reply(200, body, MODELARTS, content_type="text/event-stream")


def _wanted(body: bytes) -> dict[str, Any]:
    try:
        wanted = json.loads(body)
    except (ValueError, RecursionError):
        raise _RefusedError(400, "The body is not JSON") from None
    if not isinstance(wanted, dict):
        raise _RefusedError(400, "The body is not a JSON object")
    return wanted


def _texts(messages: Any) -> list[str]:
    """Return the text of each message; its content may be a text, or parts of which some are."""
    if not isinstance(messages, list) or not messages:
        raise _RefusedError(400, "messages must be a list with at least one message", "messages")
    texts = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _RefusedError(400, "a message must be an object with a role", "messages")
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        found = [part.get("text") for part in parts if isinstance(part, dict)]
        texts.append(" ".join(text for text in found if isinstance(text, str)))
    return texts


def _most_tokens(wanted: dict[str, Any]) -> int:
    most = wanted.get("max_completion_tokens", wanted.get("max_tokens"))
    if most is None:
        return _MAX_TOKENS
    if not isinstance(most, int) or most < 1:
        raise _RefusedError(400, "max_tokens must be a number above 0", "max_tokens")
    return min(most, _MAX_TOKENS)


def _reply(status: int, value: object) -> Reply:
    return Reply(status, json_body(value), MODELARTS)
