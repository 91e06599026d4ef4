"""The mock upstream where nginx is not installed: the smallest ASGI application, for uvicorn."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ANSWER = json.dumps(json.loads(Path(__file__).with_name("answer.json").read_text())).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer every request with the same chat completion."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
