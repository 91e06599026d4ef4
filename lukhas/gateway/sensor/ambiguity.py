"""Ambiguity: the last user text can be read in several ways, or leaves out what it is about."""

from __future__ import annotations

import re
from itertools import islice, zip_longest
from typing import Final

from lukhas.gateway.sensor.observation import Observation, Reading, has_earlier_turn

# The most that each feature adds at its full value of 1.
WEIGHTS: Final = {
    "brief": 0.4,
    "pronouns": 0.5,
    "vague": 0.4,
    "alternatives": 0.3,
    "questions": 0.35,
    "no_object": 0.5,
}
# Names, numbers, quotations and addresses say what is meant: three of them halve the level.
ANCHORS_FULL: Final = 3
ANCHORED_SHARE: Final = 0.5
# Earlier turns may hold what a short text or a pronoun refers to.
FOLLOW_UP_SHARE: Final = 0.5
BRIEF_NONE_WORDS: Final = 8
BRIEF_FULL_WORDS: Final = 2
# From here on a text is long enough to explain its own pronouns.
SELF_CONTAINED_WORDS: Final = 60
# One pronoun, or vague word, among so many words is the full feature.
DENSE: Final = 5.0


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


# Words that mean something else in another of these languages are left out.
_PRONOUNS: Final = _words(
    "it they them",
    "ihn ihm jenes",
    "ça cela ceci celui celle eux ils elles",
    "eso esto aquello ello ellos ellas",
    "isso isto aquilo eles elas",
    "quello esso essi ciò",
    "это он она они оно",
    "şu onlar tego",
)
# These point at something only where no noun follows: at the end, or before one of the words below.
_POINTERS: Final = _words("this that these those dies dieses questo dit dat этот")
_NOT_NOUNS: Final = _words(
    "is was are were isn wasn to and or in on for with please again better now work works does do did mean be",
    "right correct good bad so like instead too also more",
    "ist war und oder bitte è e en is работает",
)
_VAGUE: Final = _words(
    "something someone somewhere somehow stuff thing things whatever anything etc maybe perhaps better nice good some",
    "etwas irgendwas irgendwie irgendwo sachen dinge vielleicht besser usw",
    "quelque quelconque chose choses truc trucs mieux",
    "algo alguien cosa cosas quizás quizá mejor",
    "alguma coisa coisas talvez melhor",
    "qualcosa cose forse meglio",
    "iets dingen misschien beter",
    "лучше coś rzeczy lepiej",
)
_OR: Final = _words("or oder ou oppure или lub albo czy veya")
_VERBS: Final = _words(
    "fix improve explain summarize summarise change update make do check write rewrite translate help continue",
    "convert compare describe optimize optimise refactor review show",
    "erkläre verbessere ändere prüfe schreibe übersetze hilf mach zeige",
    "explique corrige améliore traduis aide résume",
    "explica mejora traduce ayuda cambia resume haz",
    "melhore corrija traduza ajude",
    "spiega migliora correggi traduci aiuta",
    "исправь объясни улучши переведи помоги",
)
_FILLERS: Final = _words("please just now again more bitte pls plz por favor пожалуйста me")
_ANCHOR: Final = re.compile(r"""https?://|["“”«»`][^"“”«»`\n]{2,}["“”«»`]|\d+|(?<=[\w,;] )[A-ZÀ-ÖØ-Þ][\w.-]+""")
# Kana and Han: about two characters to a word.
_UNSPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


class AmbiguitySensor:
    """Reads ambiguity from the last user text, by features that are counted."""

    name = "ambiguity"
    signal = "ambiguity"

    def sense(self, observation: Observation) -> Reading | None:
        """Return 1 - product of (1 - weight x feature), lowered by anchors; None without a user text."""
        prompt = observation.prompt
        if not prompt.strip():
            return None
        values = measure(prompt, observation.words, is_follow_up=has_earlier_turn(observation.call))
        rest = 1.0
        for name, weight in WEIGHTS.items():
            rest *= 1.0 - weight * values[name]
        level = (1.0 - rest) * (1.0 - ANCHORED_SHARE * values["anchors"])
        return Reading(level, {name: round(value, 3) for name, value in values.items() if value})


def measure(prompt: str, words: list[str], *, is_follow_up: bool) -> dict[str, float]:
    """Return the features of a text, each a ratio in [0, 1].

    Args:
        words: the text's words in lower case.
        is_follow_up: earlier turns stand before it.
    """
    unspaced = 0 if prompt.isascii() else len(_UNSPACED.findall(prompt))
    count = max(len(words), unspaced // 2)
    questions = prompt.count("?") + (0 if prompt.isascii() else prompt.count("？") + prompt.count("؟"))
    found = dict.fromkeys(WEIGHTS, 0.0) | {"anchors": 1.0, "questions": _rise(questions - 1, 3)}
    if count >= SELF_CONTAINED_WORDS:
        return found
    context = FOLLOW_UP_SHARE if is_follow_up else 1.0
    openness = _fall(count, 0, SELF_CONTAINED_WORDS)
    total = max(1, count)
    found["brief"] = _fall(count, BRIEF_FULL_WORDS, BRIEF_NONE_WORDS) * context
    found["pronouns"] = _rise(DENSE * _count_pointers(words), total) * openness * context
    found["vague"] = _rise(DENSE * sum(word in _VAGUE for word in words), total) * openness
    found["alternatives"] = _rise(sum(word in _OR for word in words), 2) * openness
    if not unspaced and _lacks_object(words):
        found["no_object"] = context
    found["anchors"] = sum(1 for _ in islice(_ANCHOR.finditer(prompt), ANCHORS_FULL)) / ANCHORS_FULL
    return found


def _count_pointers(words: list[str]) -> int:
    pointing = sum(word in _PRONOUNS for word in words)
    for word, after in zip_longest(words, words[1:]):
        if word in _POINTERS and (after is None or after in _NOT_NOUNS):
            pointing += 1
    return pointing


def _lacks_object(words: list[str]) -> bool:
    content = [word for word in words if word not in _FILLERS] if len(words) <= 6 else []
    return (
        bool(content)
        and content[0] in _VERBS
        and all(word in _PRONOUNS or word in _POINTERS or word in _VAGUE for word in content[1:])
    )


def _rise(value: float, full: float) -> float:
    return min(1.0, max(0.0, value / full))


def _fall(value: float, full: float, none: float) -> float:
    return min(1.0, max(0.0, (none - value) / (none - full)))
