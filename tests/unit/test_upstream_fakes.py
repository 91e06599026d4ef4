"""The fakes that users' own tests rely on."""

import subprocess
import sys

import pytest
from openai import OpenAI

from lukhas.clock import Clock
from lukhas.testing import FakeUpstream, FrozenClock


def test_frozen_clock_moves_only_when_told() -> None:
    """Both readings move together, and only the wall clock steps back."""
    clock: Clock = (frozen := FrozenClock(now_ms=1_000))
    frozen.advance(250)
    assert (clock.now_ms(), clock.monotonic_ms()) == (1_250, 250)
    frozen.step_back(300)
    assert (clock.now_ms(), clock.monotonic_ms()) == (950, 250)


def test_frozen_clock_negative_steps_are_refused() -> None:
    """A test that means one direction does not get the other."""
    with pytest.raises(ValueError, match="step_back"):
        FrozenClock().advance(-1)
    with pytest.raises(ValueError, match="0 or more"):
        FrozenClock().step_back(-1)


def test_fake_upstream_unscripted_serves_the_official_client() -> None:
    """Without a script it answers like a small model API."""
    with FakeUpstream() as fake, OpenAI(base_url=fake.base_url, api_key="sk-test", max_retries=0) as client:
        messages = [{"role": "user", "content": "hi"}]
        plain = client.chat.completions.create(model="m", messages=messages)  # type: ignore[arg-type]
        assert plain.choices[0].message.content == "Hello."
        stream = client.chat.completions.create(model="m", messages=messages, stream=True)  # type: ignore[arg-type]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello."
        assert [model.id for model in client.models.list()] == ["fake-1"]
        assert [request.path for request in fake.requests] == ["/v1/chat/completions"] * 2 + ["/v1/models"]
        assert fake.requests[0].json["messages"] == messages


def test_testing_module_imports_neither_pytest_nor_a_server() -> None:
    """Users of another test runner can take the fakes, and pay little for it."""
    code = "import sys, lukhas.testing; print([m for m in ('pytest', 'aiohttp', 'fastapi') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
