"""Importing files that are almost of an older format: a report or a clear refusal, never a crash."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml
from test_policy_import import PRIORITY, WEIGHT

from lukhas.errors import LukhasError
from lukhas.modulation.importer import Imported, import_policy
from lukhas.modulation.policy_reader import parse_policy

ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1e308, "", "x", "1 - x", "level ** 2", "retrieval", "[retrieval]"),
    *([], {}, ["a", "a"], [{"name": "a"}], {"x": "x"}, [1, 2], [0.2, 0.8], {"min": 1, "max": 0}, {"min": 0, "max": 1}),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a document."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, part in value.items():
            found += places(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            found += places(part, (*path, index))
    return found


def mutate(document: Any, path: tuple[Any, ...], put: Any) -> None:
    """Replace one value; `...` removes it."""
    holder = document
    for step in path[:-1]:
        holder = holder[step]
    if put is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = put


@pytest.mark.parametrize("specimen", [pytest.param(WEIGHT, id="weight"), pytest.param(PRIORITY, id="priority")])
def test_import_of_any_odd_value_is_reported_or_refused(specimen: str) -> None:
    """Whatever stands at any one place, what is written loads, or its mistakes are told; nothing else is raised."""
    draw = random.Random(20)
    imported = refused = 0
    for path in places(yaml.safe_load(specimen)):
        for put in (..., *draw.sample(ODD, 3)):
            document = yaml.safe_load(specimen)
            mutate(document, path, put)
            try:
                found = import_policy(yaml.safe_dump(document, sort_keys=False))
            except LukhasError as failure:
                assert failure.message
                refused += 1
                continue
            assert isinstance(found, Imported)
            if not found.mistakes:
                assert parse_policy(found.text).signals
                imported += 1
    assert imported > 50
    assert imported + refused > 100
