"""Novelty: how unlike the prompts before it a prompt is, by hashed character n-grams and no model.

A prompt becomes a sketch of 1,024 bits: each n-gram sets the bit that its CRC-32 names. The sizes of the sets behind
two sketches, and of their union, follow from the share of bits set (linear counting; Swamidass and Baldi, J. Chem. Inf.
Model. 47, 2007), and from them the cosine of the two sets. Sketches are all that is kept.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from lukhas.gateway.sensor.observation import Observation, Reading, nearest_person
from lukhas.modulation.state import Subject

BITS: Final = 1_024
# Prompts that a subject is compared with.
REMEMBERED: Final = 16
# The last words of a prompt that are read.
MAX_WORDS: Final = 150
# About 3 kB a subject with all its prompts, so 30 MB.
MAX_SUBJECTS: Final = 10_000
# Fewer n-grams say too little ("ok", "yes"), and up to so many they say less than all ("what about the others?").
MIN_GRAMS: Final = 3
FULL_GRAMS: Final = 12

GRAM_CHARS: Final = 4
# Kana and Han, which part no words: each character is an n-gram.
_UNSPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_ONE: Final = ord("1")
# How many n-grams probably set so many bits. All of them would mean an endless set; one short of it is the most that
# can be told.
_SIZES: Final = tuple(-BITS * math.log1p(-min(count, BITS - 1) / BITS) for count in range(BITS + 1))


class NoveltySensor:
    """Compares a prompt with the last prompts of its session, else of its user, else of its key.

    Args:
        max_subjects: whose prompts are remembered; the one unheard of for longest is forgotten first.
    """

    name = "novelty"
    signal = "novelty"

    def __init__(self, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self._max_subjects = max(1, max_subjects)
        self._sketches: OrderedDict[Subject, tuple[int, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sketches)

    def sense(self, observation: Observation) -> Reading | None:
        """Return 1 - the highest similarity, less for a short prompt.

        None for a subject's first prompt, and for one too short to compare.
        """
        subject = nearest_person(observation.subjects)
        known = self._sketches.get(subject) if subject is not None else None
        sketch = make_sketch(observation.words) if known else None
        if not known or sketch is None:
            return None
        similarity = max([compare(sketch, other) for other in known])
        weight = min(1.0, _SIZES[sketch.bit_count()] / FULL_GRAMS)
        return Reading(
            (1.0 - similarity) * weight,
            {"similarity": round(similarity, 3), "compared": len(known), "weight": round(weight, 3)},
        )

    def learn(self, observation: Observation) -> None:
        """Remember the call's prompt, as a sketch."""
        subject = nearest_person(observation.subjects)
        sketch = make_sketch(observation.words) if subject is not None else None
        if subject is None or sketch is None:
            return
        self._sketches[subject] = (*self._sketches.get(subject, ()), sketch)[-REMEMBERED:]
        self._sketches.move_to_end(subject)
        while len(self._sketches) > self._max_subjects:
            self._sketches.popitem(last=False)


def make_sketch(words: Sequence[str]) -> int | None:
    """Return the sketch of a text's words in lower case; None where they have too few n-grams."""
    grams = list_grams(words[-MAX_WORDS:])
    if len(grams) < MIN_GRAMS:
        return None
    flags = bytearray(b"0") * BITS
    for code in map(zlib.crc32, "\n".join(grams).encode("utf-8", "replace").split(b"\n")):
        flags[code % BITS] = _ONE
    return int(flags, 2)


def list_grams(words: Sequence[str]) -> set[str]:
    """Return the distinct n-grams of words: each word's first GRAM_CHARS characters, and the next as many."""
    distinct = set(words)
    grams: set[str] = set()
    if not "".join(distinct).isascii():
        unspaced = {word for word in distinct if _UNSPACED.search(word)}
        grams.update(*map(_UNSPACED.findall, unspaced))
        distinct -= unspaced
    # From a word's start, so that its ending does not hide its stem.
    grams |= {word[:GRAM_CHARS] for word in distinct}
    grams |= {word[GRAM_CHARS : 2 * GRAM_CHARS] for word in distinct if len(word) > GRAM_CHARS}
    return grams


def compare(one: int, other: int) -> float:
    """Return the estimated cosine of the sets behind two sketches, a ratio in [0, 1]; 1 for equal sketches."""
    if one == other:
        return 1.0
    size, other_size = _SIZES[one.bit_count()], _SIZES[other.bit_count()]
    shared = size + other_size - _SIZES[(one | other).bit_count()]
    return min(1.0, shared / math.sqrt(size * other_size)) if shared > 0 else 0.0
