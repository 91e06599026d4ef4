"""A mock upstream that streams: `python stream.py PORT TOKENS [BETWEEN_MS]`. Every POST gets that many token events.

Without the third argument they come all at once, else one by one, so far apart.

Plain asyncio, so that it costs little beside what is measured; `/v1/models` answers 200.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
from pydoc_data.topics import topics

ANSWERS = 40
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1735689600, "model": "gpt-4o-mini"}


def make_event(delta: dict[str, str], finish: str | None = None) -> bytes:
    """Return one event as a chunk of the body, as OpenAI sends them."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    data = b"data: " + json.dumps({**CHUNK, "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def read_tokens() -> list[str]:
    """Return prose and code in pieces of a few characters, as models write them: the language's own reference."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    return re.findall(r"\s?\w{1,6}|\s?[^\w\s]{1,3}|\s+", text)


def make_answer(pieces: list[str], together: int) -> list[bytes]:
    """Return a body in writes of at most so many events."""
    events = [make_event({"role": "assistant", "content": ""})]
    events += [make_event({"content": piece}) for piece in ["Hello", *pieces]]
    events.append(make_event({}, "stop"))
    done = b"data: [DONE]\n\n"
    events.append(b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))
    return [b"".join(events[at : at + together]) for at in range(0, len(events), together)]


async def serve(port: int, tokens: int, between_s: float) -> None:
    """Answer until the process is ended."""
    pieces = read_tokens()
    # Different answers, or the guard would know each piece from the time before.
    answers = itertools.cycle(
        [make_answer(pieces[at : at + tokens], 1 if between_s else 32) for at in range(0, ANSWERS * tokens, tokens)]
    )

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                    continue
                size = next(
                    int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                )
                await reader.readexactly(size)
                writer.write(HEAD)
                for block in next(answers):
                    writer.write(block)
                    await writer.drain()
                    if between_s:
                        await asyncio.sleep(between_s)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float((*sys.argv, "0")[3]) / 1000))
