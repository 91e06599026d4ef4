"""Embeddings and moderations of the upstream that calls no model."""

import math
from typing import Any

import orjson
import pytest
from openai.types import CreateEmbeddingResponse, ModerationCreateResponse
from test_echo_response import client

from lukhas.openai.echo import EchoUpstream
from lukhas.openai.upstream import UpstreamRequest


async def call(path: str, body: Any) -> tuple[int, Any]:
    answer = await EchoUpstream().send(UpstreamRequest("POST", path, orjson.dumps(body)))
    return answer.status, orjson.loads(await answer.read(100_000_000))


async def test_echo_embedding_is_equal_for_equal_texts_alone() -> None:
    """A vector is made from its text: the same every time, another for another text, of length one."""
    status, answer = await call("/embeddings", {"model": "m", "input": ["a", "b", "a", "A"]})
    CreateEmbeddingResponse.model_validate(answer, strict=True)
    first, second, third, fourth = (entry["embedding"] for entry in answer["data"])
    assert status == 200
    assert first == third
    assert second != first != fourth
    assert math.isclose(math.sqrt(sum(x * x for x in first)), 1.0)
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("dimensions", [1, 3, 256])
async def test_echo_embedding_base64_is_the_same_vector(dimensions: int) -> None:
    """The official client asks for base64 where nothing is said, and reads the same numbers as from floats."""
    async with client() as openai:
        packed = await openai.embeddings.create(model="m", input="text", dimensions=dimensions)
        plain = await openai.embeddings.create(model="m", input="text", dimensions=dimensions, encoding_format="float")
    assert len(plain.data[0].embedding) == dimensions
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({}, "input", id="no-input"),
        pytest.param({"input": []}, "input", id="empty-list"),
        pytest.param({"input": ""}, "input", id="empty-text"),
        pytest.param({"input": ["a", ""]}, "input", id="empty-entry"),
        pytest.param({"input": ["a", [1], []]}, "input", id="empty-tokens"),
        pytest.param({"input": [True]}, "input", id="truth"),
        pytest.param({"input": {"a": 1}}, "input", id="object"),
        pytest.param({"input": ["a"] * 2049}, "input", id="too-many"),
        pytest.param({"input": "a", "dimensions": 0}, "dimensions", id="no-dimensions"),
        pytest.param({"input": "a", "dimensions": True}, "dimensions", id="true-dimensions"),
        pytest.param({"input": "a", "dimensions": 10**9}, "dimensions", id="huge-dimensions"),
        pytest.param({"input": "a", "encoding_format": "hex"}, "encoding_format", id="encoding"),
    ],
)
async def test_echo_embedding_bad_request_is_400(fields: dict[str, Any], param: str) -> None:
    """What the API refuses is refused, with the field at fault."""
    status, answer = await call("/embeddings", {"model": "m", **fields})
    assert (status, answer["error"]["param"]) == (400, param)


async def test_echo_embedding_takes_tokens() -> None:
    """A list of numbers is one input, a list of lists is many."""
    assert len((await call("/embeddings", {"model": "m", "input": [1, 2, 3]}))[1]["data"]) == 1
    assert len((await call("/embeddings", {"model": "m", "input": [[1], [2]]}))[1]["data"]) == 2


@pytest.mark.parametrize(
    ("given", "count"),
    [
        pytest.param("text", 1, id="text"),
        pytest.param(["a", "b"], 2, id="texts"),
        pytest.param([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}], 1, id="parts"),
    ],
)
async def test_echo_moderation_flags_nothing(given: Any, count: int) -> None:
    """Each input gets a clean bill in OpenAI's shape, with or without a model named."""
    status, answer = await call("/moderations", {"input": given})
    parsed = ModerationCreateResponse.model_validate(answer)
    assert (status, len(parsed.results)) == (200, count)
    assert not any(result.flagged or any(result.categories.model_dump().values()) for result in parsed.results)


@pytest.mark.parametrize("given", [None, [], 7, [7], ["a", None]])
async def test_echo_moderation_bad_input_is_400(given: Any) -> None:
    """What is no text is refused."""
    assert (await call("/moderations", {"input": given}))[0] == 400
