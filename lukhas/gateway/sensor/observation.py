"""What a sensor may look at, and what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast

import msgspec

from lukhas.gateway.sensor.load import LoadMeter
from lukhas.moderation.rule import Finding
from lukhas.modulation.state import Subject
from lukhas.openai.call import Call

# Sensors read the end of a long prompt only: what is asked usually stands there, and their cost stays bounded.
MAX_PROMPT_CHARS: Final = 4_000
# An agent's turn may have many tool results after the user's words; further back nobody looks.
_MAX_SCANNED: Final = 1_000
# Where chat and the other dialects keep what is said.
_PLACES: Final = ("messages", "input")
_SPEAKERS: Final = ("user", "assistant")
# For plain ASCII, which needs no regular expression: all but letters and digits parts words.
_BLANKS: Final = {code: " " for code in range(128) if not chr(code).isalnum()}
_WORD: Final = re.compile(r"[^\W_]+")


class Reading(msgspec.Struct, frozen=True):
    """What a sensor says of one call.

    Attributes:
        level: of the sensor's signal, a ratio in [0, 1].
        evidence: why, by name: numbers, short words, or lists of these. Never text of the request.
    """

    level: float
    evidence: dict[str, Any] = {}


class Observation(msgspec.Struct):
    """One call as the sensors see it. It belongs to one call and is not shared.

    Attributes:
        call: the request.
        subjects: whom the call names, nearest first.
        now_ms: in ms since the epoch.
        load: how busy the upstream is.
        held: levels that the signal state holds for these subjects, by signal.
        feedback: the subject's satisfaction, in [-1, 1]; None where nothing is known.
        violations: recent ones of these subjects.
        findings: what moderation found in this request.
        is_violation: for `learn`, after the call: whether this call had a violation.
    """

    call: Call
    subjects: Sequence[Subject]
    key_id: str
    tenant: str
    now_ms: int
    load: LoadMeter
    held: Mapping[str, float] = {}
    feedback: float | None = None
    violations: int = 0
    findings: Sequence[Finding] = ()
    is_violation: bool = False
    _prompt: str | None = None
    _lowered: str | None = None
    _words: list[str] | None = None

    @property
    def prompt(self) -> str:
        """The last user text, its last MAX_PROMPT_CHARS characters; empty where there is none."""
        if self._prompt is None:
            self._prompt = read_prompt(self.call)
        return self._prompt

    @property
    def lowered(self) -> str:
        """The prompt in lower case."""
        if self._lowered is None:
            self._lowered = self.prompt.lower()
        return self._lowered

    @property
    def words(self) -> list[str]:
        """The prompt's words in lower case, in order."""
        words = self._words
        if words is None:
            lowered = self.lowered
            words = lowered.translate(_BLANKS).split() if lowered.isascii() else _WORD.findall(lowered)
            self._words = words
        return words


class Sensor(Protocol):
    """Turns one call into the level of one signal."""

    @property
    def name(self) -> str:
        """What the setting, the flag and the trace call it: `load-average` has the flag SENSOR_LOAD_AVERAGE."""
        ...

    @property
    def signal(self) -> str:
        """The signal that it reads; the policy must declare it."""
        ...

    def sense(self, observation: Observation) -> Reading | None:
        """Return the level for this call, or None where there is nothing to say.

        It runs on the event loop, so it must neither wait nor compute for long: 50 us, and never 5 ms. A sensor that
        also has `learn(observation) -> None` gets every call again after its end.
        """
        ...


def nearest_person(subjects: Sequence[Subject]) -> Subject | None:
    """Return whom a call is of: the nearest of its subjects, unless that is a whole tenant or everyone."""
    return subjects[0] if subjects and subjects[0].scope in ("session", "user", "key") else None


def read_prompt(call: Call) -> str:
    """Return the end of the last user message, or of a plain text input; at most MAX_PROMPT_CHARS characters."""
    for name in _PLACES:
        items: Any = call.body.get(name)
        if isinstance(items, str):
            return items[-MAX_PROMPT_CHARS:]
        if isinstance(items, list):
            for item in cast("list[Any]", items)[: -_MAX_SCANNED - 1 : -1]:
                if isinstance(item, str):
                    return item[-MAX_PROMPT_CHARS:]
                message = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
                if message.get("role") == "user":
                    return _read_content(message.get("content"))
    return ""


def has_earlier_turn(call: Call) -> bool:
    """Tell whether something was said before the last user message, by the user or by the model."""
    items: Any = call.body.get("messages") or call.body.get("input")
    is_user_seen = False
    for item in cast("list[Any]", items)[: -_MAX_SCANNED - 1 : -1] if isinstance(items, list) else []:
        role: Any = cast("dict[str, Any]", item).get("role") if isinstance(item, dict) else None
        if is_user_seen and role in _SPEAKERS:
            return True
        is_user_seen = is_user_seen or role == "user"
    return False


def _read_content(content: Any) -> str:
    """Return the end of a message's content: a text, or parts of which some are texts."""
    if isinstance(content, str):
        return content[-MAX_PROMPT_CHARS:]
    found: list[str] = []
    size = 0
    for part in cast("list[Any]", content)[: -_MAX_SCANNED - 1 : -1] if isinstance(content, list) else []:
        text: Any = cast("dict[str, Any]", part).get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            found.append(text[-MAX_PROMPT_CHARS:])
            size += len(found[-1]) + 1
            if size > MAX_PROMPT_CHARS:
                break
    found.reverse()
    return "\n".join(found)[-MAX_PROMPT_CHARS:]
