"""What the sensors read of a request, and urgency and ambiguity from it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_call import chat, observe

from lukhas.gateway.sensor.ambiguity import AmbiguitySensor
from lukhas.gateway.sensor.novelty import NoveltySensor
from lukhas.gateway.sensor.observation import MAX_PROMPT_CHARS, Reading, Sensor, has_earlier_turn, read_prompt
from lukhas.gateway.sensor.urgency import CALM_SHARE, WEIGHTS, UrgencySensor
from lukhas.gateway.sensors import is_reading
from lukhas.openai.call import Call
from lukhas.openai.wire import Extension


def responses(**body: object) -> Call:
    return Call("responses", "/responses", body, "m", False, None, Extension())


def urgency(text: str, **fields: object) -> Reading:
    found = UrgencySensor().sense(observe(chat(("user", text), **fields)))
    assert found is not None
    return found


def ambiguity(*messages: str) -> float:
    roles = ["user", "assistant"] * len(messages)
    call = chat(*zip(roles, messages, strict=False))
    found = AmbiguitySensor().sense(observe(call))
    assert found is not None
    return found.level


@pytest.mark.parametrize(
    ("call", "prompt"),
    [
        pytest.param(
            chat(("system", "s"), ("user", "one"), ("assistant", "a"), ("user", "two")), "two", id="last-user"
        ),
        pytest.param(chat(("user", "one"), ("assistant", "a"), ("tool", "result")), "one", id="before-a-tool-result"),
        pytest.param(chat(("system", "s"), ("assistant", "a")), "", id="no-user"),
        pytest.param(chat(("user", "")), "", id="empty"),
        pytest.param(chat(), "", id="nothing"),
        pytest.param(responses(input="hello"), "hello", id="responses-text"),
        pytest.param(
            responses(
                input=[
                    {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "x", "text": "b"}, "c"]},
                    {"type": "function_call_output", "output": "o"},
                ],
                metadata={"k": "v"},
            ),
            "a\nb\nc",
            id="responses-parts",
        ),
        pytest.param(responses(input=["a", "b"]), "b", id="embeddings-list"),
        pytest.param(
            responses(messages=[{"role": "user", "name": "alice", "content": "hi"}]), "hi", id="without-the-name"
        ),
        pytest.param(
            responses(messages=[{"role": "user", "content": "hi"}], tools=[{"x": "y"}] * 5_000), "hi", id="many-tools"
        ),
        pytest.param(
            responses(input=[{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]), "", id="image"
        ),
        pytest.param(responses(input=[7, None, [], {}, {"role": "user"}]), "", id="strange-items"),
        pytest.param(responses(input=[{"role": "user", "content": {"text": "x"}}]), "", id="strange-content"),
        pytest.param(responses(input=[[1, 2], [3]]), "", id="tokens"),
        pytest.param(responses(input=None, messages={}), "", id="strange-places"),
    ],
)
def test_read_prompt_is_the_last_user_text(call: Call, prompt: str) -> None:
    """Whatever the dialect, sensors read what the user wrote last, and nothing else."""
    assert read_prompt(call) == prompt


def test_read_prompt_of_a_long_text_is_its_end() -> None:
    """What is read is bounded; several parts together, too."""
    assert read_prompt(chat(("user", "a" * 9_000 + "b"))) == "a" * (MAX_PROMPT_CHARS - 1) + "b"
    parts = [{"type": "input_text", "text": str(number) * 3_000} for number in range(4)]
    call = responses(input=[{"role": "user", "content": parts}])
    assert read_prompt(call) == ("2" * 3_000 + "\n" + "3" * 3_000)[-MAX_PROMPT_CHARS:]


def test_read_prompt_looks_back_a_bounded_way() -> None:
    """An endless run of tool results is not searched to its beginning."""
    call = chat(("user", "far away"), *[("tool", "x")] * 5_000)
    began = time.perf_counter()
    assert read_prompt(call) == ""
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize(
    ("text", "cues"),
    [
        pytest.param("URGENT please", ["haste"], id="english"),
        pytest.param("I need this ASAP.", ["haste"], id="asap"),
        pytest.param("Answer as soon as possible", ["haste"], id="phrase"),
        pytest.param("Das ist dringend", ["haste"], id="german"),
        pytest.param("so schnell wie möglich bitte", ["haste"], id="german-phrase"),
        pytest.param("C'est urgence absolue", ["haste"], id="french"),
        pytest.param("Lo necesito cuanto antes", ["haste"], id="spanish"),
        pytest.param("Это срочно", ["haste"], id="russian"),
        pytest.param("紧急，请帮忙", ["haste"], id="chinese"),
        pytest.param("至急お願いします", ["haste"], id="japanese"),
        pytest.param("هذا عاجل", ["haste"], id="arabic"),
        pytest.param("production is down", ["outage"], id="outage"),
        pytest.param("the report is due tomorrow", ["deadline"], id="deadline"),
        pytest.param("help!!", ["emphasis"], id="exclamation"),
        pytest.param("WHY DOES THIS NOT WORK", ["emphasis"], id="capitals"),
        pytest.param("WARUM GEHT DAS NICHT ÜBERALL", ["emphasis"], id="capitals-unicode"),
        pytest.param("not urgent, but look at it", ["calm", "haste"], id="calm"),
        pytest.param("What is the capital of France?", [], id="none"),
        pytest.param("Explain NASA and ESA to me please", [], id="two-names"),
        pytest.param("insurgently p0tatoes deadlines2", [], id="inside-other-words"),
        pytest.param("Prices went down in March", [], id="down"),
    ],
)
def test_urgency_text_has_its_cues(text: str, cues: list[str]) -> None:
    """The evidence names classes of cues, and the level follows from their weights."""
    found = urgency(text)
    assert found.evidence == {"cues": cues}
    rest = 1.0
    for cue in cues:
        rest *= 1 - WEIGHTS.get(cue, 0.0)
    assert found.level == pytest.approx((1 - rest) * (CALM_SHARE if "calm" in cues else 1))


@pytest.mark.parametrize(
    ("fields", "cues"),
    [
        pytest.param({"max_tokens": 20}, ["short_answer"], id="short"),
        pytest.param({"max_completion_tokens": 64}, ["short_answer"], id="bound"),
        pytest.param({"max_tokens": 65}, [], id="long"),
        pytest.param({"max_tokens": 0}, [], id="zero"),
        pytest.param({"max_tokens": "20"}, [], id="text"),
        pytest.param({"max_tokens": None}, [], id="null"),
        pytest.param({"max_tokens": True}, [], id="boolean"),
    ],
)
def test_urgency_short_answer_is_a_weak_cue(fields: dict[str, object], cues: list[str]) -> None:
    """Who wants few tokens may be in a hurry; a value of another type is no number."""
    assert urgency("hello there", **fields).evidence == {"cues": cues}


def test_urgency_in_a_long_text_counts_less() -> None:
    """A report about an emergency is not one."""
    words = "the report says a lot about many things " * 60
    assert 0 < urgency(f"{words} emergency").level < urgency("emergency").level / 2


def test_urgency_cues_add_up_without_passing_one() -> None:
    """Each class counts once, more classes count more."""
    once = urgency("urgent").level
    more = urgency("URGENT: production is down, it is due today, fix it asap!!!").level
    assert once < more < 1
    assert urgency("urgent urgent asap emergency").level == once


@pytest.mark.parametrize(
    ("vaguer", "clearer"),
    [
        pytest.param("Fix it", "Fix the login form of our shop so that Enter submits it", id="missing-object"),
        pytest.param("Make it better somehow", "Cut the text to 100 words and keep the numbers", id="vague"),
        pytest.param("this", "What does the word this mean in English grammar?", id="pronoun"),
        pytest.param("Fix it", "Fix `it` in parser.py line 12, see https://example.org", id="anchors"),
        pytest.param("What about that? And the other? Or both?", "What does the other report say?", id="questions"),
        pytest.param("tea or coffee or juice", "tea with coffee and juice", id="alternatives"),
        pytest.param("help", "help me choose a bicycle for long rides on gravel roads", id="short"),
        pytest.param("Mach das irgendwie besser", "Kürze den Absatz über Kosten auf zwei Sätze", id="german"),
        pytest.param("怎么办", "请解释为什么天空是蓝色的，并给出物理原因和公式", id="chinese"),
    ],
)
def test_ambiguity_vaguer_text_is_higher(vaguer: str, clearer: str) -> None:
    """Texts that leave out what they are about read higher than those that say it."""
    assert ambiguity(vaguer) > ambiguity(clearer) + 0.1


def test_ambiguity_follow_up_is_lower() -> None:
    """Earlier turns may say what a short text refers to."""
    assert ambiguity("Write a poem about rain", "Rain falls ...", "make it shorter") < ambiguity("make it shorter")


@pytest.mark.parametrize(
    ("call", "has_one"),
    [
        pytest.param(chat(("user", "a")), False, id="first"),
        pytest.param(chat(("system", "s"), ("user", "a")), False, id="after-a-system-message"),
        pytest.param(chat(("user", "a"), ("assistant", "b"), ("tool", "c")), False, id="in-the-first-turn"),
        pytest.param(chat(("user", "a"), ("assistant", "b"), ("user", "c")), True, id="second"),
        pytest.param(chat(("user", "a"), ("user", "c")), True, id="two-in-a-row"),
        pytest.param(chat(("assistant", "Hello!"), ("user", "c")), True, id="after-a-greeting"),
        pytest.param(responses(input="a"), False, id="text"),
        pytest.param(responses(input=["a", "b"]), False, id="list"),
        pytest.param(responses(input=[None, {"role": ["user"]}, {"role": "user"}]), False, id="strange"),
    ],
)
def test_has_earlier_turn_is_told(call: Call, has_one: bool) -> None:
    """Instructions are no turn, and neither is what comes after the user's words."""
    assert has_earlier_turn(call) is has_one


def test_ambiguity_of_a_long_text_is_its_questions_only() -> None:
    """A page explains its own pronouns."""
    page = "It is what they say about something or other and this is that. " * 10
    assert ambiguity(page) == 0
    assert 0 < ambiguity(page + "Why? How? When? Who?") < 0.4


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000"])
def test_text_sensors_without_a_text_say_nothing(text: str) -> None:
    """Silence is no reading, not a reading of 0."""
    assert UrgencySensor().sense(observe(text)) is None
    assert AmbiguitySensor().sense(observe(text)) is None


TEXT_SENSORS: list[type[Sensor]] = [UrgencySensor, AmbiguitySensor, NoveltySensor]
HARD = [
    "?" * 10_000,
    "!" * 10_000,
    '"' * 10_000,
    "“" * 10_000,
    '"a' * 5_000,
    "“aa " * 2_500,
    "A" * 10_000,
    "A " * 5_000,
    "0 1 " * 2_500,
    "it or " * 2_000,
    "as soon as " * 1_000,
    "漢" * 10_000,
    "\u0301" * 10_000,
    "\U0001f600" * 10_000,
    "İ" * 10_000,
    "\x00" * 10_000,
    "\ud800" * 10_000,
    "'" * 10_000,
    "a'" * 5_000,
    " " * 10_000 + "a",
]


@pytest.mark.parametrize("make", TEXT_SENSORS)
@pytest.mark.parametrize("text", [pytest.param(text, id=f"{number}") for number, text in enumerate(HARD)])
def test_text_sensor_hard_text_is_read_in_bounded_time(make: type[Sensor], text: str) -> None:
    """No text makes a sensor slow, and none makes it fail."""
    sensor = make()
    learn = getattr(sensor, "learn", lambda seen: None)
    learn(observe("something else to compare with, long enough to be one"))
    began = time.perf_counter()
    found = sensor.sense(observe(text))
    # Two orders of magnitude above what they take, so that a busy machine does not matter.
    assert time.perf_counter() - began < 0.1
    assert found is None or is_reading(found)


WORDS = (
    "fix",
    "it",
    "this",
    "or",
    "something",
    "URGENT",
    "asap",
    "not",
    "urgent",
    "?",
    "!",
    "12",
    "`x`",
    "紧急",
    "срочно",
)
words = st.sampled_from(WORDS)
any_text = st.text(max_size=300) | st.lists(words, max_size=80).map(" ".join)


@pytest.mark.parametrize("make", TEXT_SENSORS)
@given(texts=st.lists(any_text, min_size=1, max_size=4))
def test_text_sensor_any_text_gives_the_same_level_in_bounds(make: type[Sensor], texts: list[str]) -> None:
    """Any text at all: a level in [0, 1] or none, the same each time, and evidence without any of it."""
    readings: list[list[Reading | None]] = []
    for _ in range(2):
        sensor = make()
        learn = getattr(sensor, "learn", lambda seen: None)
        found: list[Reading | None] = []
        for text in texts:
            found.append(sensor.sense(observe(text)))
            learn(observe(text))
        readings.append(found)
    assert readings[0] == readings[1]
    assert all(found is None or is_reading(found) for found in readings[0])
