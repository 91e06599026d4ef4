"""What the sensors cost: each one's reading of a prompt of 100, 1,000 and 10,000 characters, and all of them together.

python perf/sensor.py [--rounds 40] [--json]

The least disturbed of all rounds, in one run. Each reading includes what the sensors share, made anew: finding the
prompt and its words. Novelty compares with 16 prompts; the last line is what it remembers of one subject. As the thing
to compare with, `str.split` of the same prompt.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import timeit
import tracemalloc
from collections.abc import Callable, Sequence

from lukhas import __version__
from lukhas.gateway.sensor.novelty import REMEMBERED, NoveltySensor
from lukhas.gateway.sensors import BUILT_IN, LoadMeter, Observation, load_sensors
from lukhas.modulation.state import Subject
from lukhas.openai.call import Call, Text
from lukhas.openai.wire import Extension
from lukhas.testing import FrozenClock

LENGTHS = (100, 1_000, 10_000)
TARGETS = {"all, 1000 characters, us": 150.0, "all, 10000 characters, us": 250.0}
SUBJECTS = 500


def make_prompt(chance: random.Random, length: int) -> str:
    """Return words of 2 to 9 letters, from a stock of 400, up to a length in characters."""
    stock = ["".join(chance.choice("etaoinshrdlucmfw") for _ in range(chance.randint(2, 9))) for _ in range(400)]
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length:
        words.append(chance.choice(stock))
    return " ".join(words)[:length]


def observe(prompt: str, session: str = "sub_1") -> Observation:
    """Return what the sensors see of a call with one prompt."""
    body = {"messages": [{"role": "user", "content": prompt}]}
    texts = (Text("input", ("messages", 0, "content"), prompt, 0),)
    call = Call("chat", "/chat/completions", body, "m", False, None, Extension(), texts)
    subjects = [Subject("session", session), Subject("key", "key_1"), Subject("tenant", "t")]
    return Observation(call, subjects, "key_1", "t", 0, LoadMeter(FrozenClock()))


def time_call(call: Callable[[], object], rounds: int, number: int = 100) -> float:
    """Return the least of all rounds of one call's time, in us."""
    return min(timeit.repeat(call, number=number, repeat=rounds)) / number * 1e6


def measure_memory(chance: random.Random) -> float:
    """Return what novelty remembers of one subject with all its prompts, in bytes."""
    sensor = NoveltySensor()
    prompts = [make_prompt(chance, 1_000) for _ in range(REMEMBERED)]
    tracemalloc.start()
    for number in range(SUBJECTS):
        for prompt in prompts:
            sensor.learn(observe(prompt, f"sub_{number:026d}"))
    size_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size_bytes / SUBJECTS


def measure_readings(chance: random.Random, length: int, rounds: int) -> dict[str, float]:
    """Return each sensor's figure for prompts of one length, by its label."""
    prompt = make_prompt(chance, length)
    before = [observe(make_prompt(chance, length)) for _ in range(REMEMBERED)]
    figures: dict[str, float] = {}
    for names in (*((name,) for name in BUILT_IN), tuple(BUILT_IN)):
        array = load_sensors(names, lambda name, default: default)
        for call in before:
            array.learn(call)
        label = names[0] if len(names) == 1 else "all"
        figures[f"{label}, {length} characters, us"] = time_call(lambda a=array: a.read(observe(prompt)), rounds)
    figures[f"no sensor, {length} characters, us"] = time_call(lambda: observe(prompt), rounds)
    figures[f"str.split, {length} characters, us"] = time_call(prompt.split, rounds)
    return figures


def measure(rounds: int) -> dict[str, float]:
    """Return every figure by its label."""
    chance = random.Random(1)
    figures: dict[str, float] = {}
    for length in LENGTHS:
        figures |= measure_readings(chance, length, rounds)
    figures["novelty, one subject, bytes"] = measure_memory(chance)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures beside their targets; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="rounds per figure (default 40)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    figures = measure(options.rounds)
    missed = [label for label, target in TARGETS.items() if figures[label] > target]
    if options.json:
        print(json.dumps({"figures": figures, "targets": TARGETS, "missed": missed}))
        return 1 if missed else 0
    print(f"lukhas {__version__}, Python {platform.python_version()}, {platform.machine()}")
    for label, figure in figures.items():
        target = f"  under {TARGETS[label]:g}" if label in TARGETS else ""
        print(f"{label:<40}{figure:>9.1f}{target}{'  MISSED' * (label in missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
