"""Signals that come with a call: where they may stand, how long they live, who may send which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import openai
import pytest
from conftest import QUESTION, Answer, Gateway, start_gateway

from lukhas.testing import FakeUpstream, FrozenClock

_fresh = count()


@dataclass
class Timed:
    """A gateway whose clock only the test moves."""

    gateway: Gateway
    clock: FrozenClock

    def call(self, signals: str = "", session: str | None = None, *, key: str | None = None, **fields: Any) -> Answer:
        headers = {"X-Lukhas-Signals": signals} if signals else {}
        if session is not None:
            headers["X-Lukhas-Session"] = session
        return self.gateway.chat(fields, headers, **({} if key is None else {"key": key}))

    def levels(self, answer: Answer) -> dict[str, float]:
        assert answer.status == 200, answer.body
        return self.gateway.document(answer.headers["x-lukhas-audit-id"])["decision"]["inputs"]["levels"]


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timed]:
    clock = FrozenClock()
    with FakeUpstream() as upstream:
        gateway = start_gateway(tmp_path_factory.mktemp("timed"), upstream, {}, clock=clock)
        yield Timed(gateway, clock)
        gateway.stop()


@pytest.fixture
def session() -> str:
    return f"session-{next(_fresh)}"


def test_header_and_body_signals_join(timed: Timed) -> None:
    """A name may come by either way, and both count."""
    answer = timed.call("stress=0.7", lukhas={"signals": {"novelty": 0.4}})
    assert timed.levels(answer) == {"stress": 0.7, "novelty": 0.4}


def test_two_signal_headers_join(timed: Timed) -> None:
    """A header that stands twice is one list."""
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
    head = "x-lukhas-signals: stress=0.3\r\nX-LUKHAS-SIGNALS: novelty=0.3\r\nconnection: close\r\n"
    from conftest import raw_chat

    assert timed.gateway.raw(raw_chat(body, headers=head)).startswith(b"HTTP/1.1 200")
    levels = timed.gateway.document(timed.gateway.last_audit_id())["decision"]["inputs"]["levels"]
    assert levels == {"stress": 0.3, "novelty": 0.3}


@pytest.mark.parametrize(
    ("header", "signals"),
    [
        pytest.param("stress=0.7", {"stress": 0.2}, id="header-and-body"),
        pytest.param("stress=0.7, stress=0.2", None, id="twice-in-the-header"),
        pytest.param("", [{"name": "stress", "level": 1}, {"name": "stress", "level": 1}], id="twice-in-the-body"),
        pytest.param("stress=2", None, id="level-2"),
        pytest.param("stress=-0.1", None, id="level-negative"),
        pytest.param("stress=nan", None, id="level-nan"),
        pytest.param("stress=inf", None, id="level-inf"),
        pytest.param("stress=1e999", None, id="level-overflow"),
        pytest.param("stress=high", None, id="level-text"),
        pytest.param("stress", None, id="no-level"),
        pytest.param("=0.5", None, id="no-name"),
        pytest.param("joy=0.5", None, id="unknown"),
        pytest.param("Stress=0.5", None, id="other-case"),
        pytest.param("stress=0.5;ttl_ms=0", None, id="ttl-0"),
        pytest.param("stress=0.5;ttl_ms=-5", None, id="ttl-negative"),
        pytest.param("stress=0.5;ttl_ms=1.5", None, id="ttl-fraction"),
        pytest.param("stress=0.5;ts=1", None, id="option-of-the-server"),
        pytest.param("stress=0.5;ttl_ms=5;ttl_ms=6", None, id="ttl-twice"),
        pytest.param("stress=0.5,", None, id="dangling-comma"),
        pytest.param("stress=0.5" + " " * 5000, None, id="header-too-long"),
        pytest.param("\u00e4=0.5", None, id="not-ascii"),
        pytest.param("", {"stress": 2}, id="body-level-2"),
        pytest.param("", {"stress": "0.5"}, id="body-level-text"),
        pytest.param("", {"stress": True}, id="body-level-bool"),
        pytest.param("", {"stress": None}, id="body-level-null"),
        pytest.param("", {"stress": 10**30}, id="body-level-endless"),
        pytest.param("", {"joy": 0.5}, id="body-unknown"),
        pytest.param("", {"": 0.5}, id="body-name-empty"),
        pytest.param("", {"stress": {"level": 0.5, "source": "root"}}, id="body-sets-source"),
        pytest.param("", {"stress": {"level": 0.5, "ts": 1}}, id="body-sets-ts"),
        pytest.param("", {"stress": {"ttl_ms": 5}}, id="body-without-level"),
        pytest.param("", "stress=0.5", id="body-text"),
        pytest.param("", ["stress"], id="body-list-of-text"),
        pytest.param("", [{"level": 1}], id="body-without-name"),
        pytest.param("alignment_risk=0.5, joy=0.5", None, id="one-good-one-unknown"),
    ],
)
def test_wrong_signal_is_a_400_and_changes_nothing(timed: Timed, session: str, header: str, signals: Any) -> None:
    """Nothing is sent, recorded, or kept for the session: not even the good one beside it."""
    before, sent = timed.gateway.count("decision"), len(timed.gateway.upstream.requests)
    fields = {} if signals is None else {"lukhas": {"signals": signals}}
    answer = timed.gateway.http(
        "POST",
        "/v1/chat/completions",
        {"model": "m", "messages": QUESTION, **fields},
        {"X-Lukhas-Session": session, **({"X-Lukhas-Signals": header.encode().decode("latin-1")} if header else {})},
    )
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["code"] in ("invalid_signal", "unknown_signal", "invalid_request")
    assert len(timed.gateway.upstream.requests) == sent and timed.gateway.count("decision") == before
    assert timed.levels(timed.call(session=session)) == {}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        pytest.param("a", None, id="header"),
        pytest.param(None, "a", id="body"),
        pytest.param("a", "a", id="both-the-same"),
    ],
)
def test_session_is_named_by_header_or_body(timed: Timed, session: str, header: str | None, body: str | None) -> None:
    """Either way, or both, names the same session."""
    name = f"{session}-a"
    timed.call("stress=0.7", session=name)
    extension = {} if body is None else {"lukhas": {"session": name}}
    assert timed.levels(timed.call(session=name if header else None, **extension)) == {"stress": 0.7}


def test_session_of_header_and_body_must_agree(timed: Timed) -> None:
    """Two sessions in one request are a mistake, not a choice."""
    answer = timed.call(session="a", lukhas={"session": "b"})
    assert answer.status == 400 and answer.error["param"] == "lukhas.session"


def test_session_name_may_be_any_text(timed: Timed) -> None:
    """UTF-8 in the header is the same name as in the body."""
    name = "s\u00e9ance \U0001f426"
    timed.call("stress=0.7", lukhas={"session": name})
    answer = timed.call(session=name.encode().decode("latin-1"))
    assert timed.levels(answer) == {"stress": 0.7}


def test_session_header_that_is_not_utf_8_is_a_400(timed: Timed) -> None:
    """Bytes that are no text name nobody."""
    answer = timed.call(session="\xff\xfe")
    assert answer.status == 400 and answer.error["param"] == "X-Lukhas-Session"


def test_signal_lives_on_in_its_session_and_decays(timed: Timed, session: str) -> None:
    """The next call of the session is decided by it: half after a half-life, gone after its ttl."""
    timed.call("alignment_risk=0.8", session)
    assert timed.levels(timed.call(session=session)) == {"alignment_risk": 0.8}
    timed.clock.advance(120_000)
    assert timed.levels(timed.call(session=session)) == {"alignment_risk": pytest.approx(0.4)}
    timed.clock.advance(479_999)
    later = timed.levels(timed.call(session=session))
    assert later.get("alignment_risk", 0.0) == 0.0  # 0.8 / 2**5 is below the minimum


def test_ttl_ends_to_the_millisecond(timed: Timed, session: str) -> None:
    """One millisecond before its end a signal counts, at its end it does not."""
    timed.call("stress=0.9;ttl_ms=5000", session)
    timed.clock.advance(4999)
    assert "stress" in timed.levels(timed.call(session=session))
    timed.clock.advance(1)
    assert timed.levels(timed.call(session=session)) == {}


def test_clock_that_steps_back_raises_no_level(timed: Timed, session: str) -> None:
    """A level never exceeds the emitted one."""
    timed.call("alignment_risk=0.5", session)
    timed.clock.step_back(3_600_000)
    assert timed.levels(timed.call(session=session)) == {"alignment_risk": 0.5}
    timed.clock.advance(3_600_000)


def test_lower_risk_never_lowers_an_earlier_one(timed: Timed, session: str) -> None:
    """Neither a lower level nor a shorter life takes back what was said."""
    timed.call("alignment_risk=0.8", session)
    timed.call("alignment_risk=0.1", session)
    timed.call("alignment_risk=0.9;ttl_ms=1", session)
    timed.clock.advance(2)
    assert timed.levels(timed.call(session=session))["alignment_risk"] == pytest.approx(0.8, abs=1e-4)


def test_cooled_down_emission_holds_the_last_value_and_says_so(timed: Timed, session: str) -> None:
    """Inside the cooldown a style emission is ignored; the record names it."""
    timed.call("stress=0.9", session)
    timed.clock.advance(100)
    answer = timed.call("stress=0.3", session)
    assert timed.levels(answer)["stress"] == pytest.approx(0.9, rel=0.01)
    inputs = timed.gateway.document(answer.headers["x-lukhas-audit-id"])["decision"]["inputs"]
    assert inputs["ignored"] == [{"signal": "stress", "level": 0.3, "retry_after_ms": 700}]
    timed.clock.advance(700)
    assert timed.levels(timed.call("stress=0.3", session))["stress"] == 0.3


def test_call_without_session_speaks_for_itself_only(timed: Timed) -> None:
    """Its signals end with it, whatever the key calls next."""
    assert timed.levels(timed.call("alignment_risk=0.9")) == {"alignment_risk": 0.9}
    assert timed.levels(timed.call()) == {}


def test_signal_of_a_user_holds_for_the_user_without_session(timed: Timed) -> None:
    """`safety_identifier` goes before `user`, and either carries signals from call to call."""
    timed.call("alignment_risk=0.9", safety_identifier="ana", user="desk-7")
    assert timed.levels(timed.call(user="ana")) == {"alignment_risk": 0.9}
    assert timed.levels(timed.call(user="desk-7")) == {}
    assert timed.levels(timed.call(lukhas={"user": "ana"}, user="desk-7")) == {"alignment_risk": 0.9}


def test_guard_of_the_user_counts_in_every_session(timed: Timed, session: str) -> None:
    """A guard's level is the maximum over the scopes that a call names."""
    timed.call("alignment_risk=0.6", user="bob")
    timed.call("alignment_risk=0.2", session)
    assert timed.levels(timed.call(session=session, user="bob")) == {"alignment_risk": 0.6}


def test_tenants_do_not_share_sessions(timed: Timed, session: str) -> None:
    """One tenant's session 'a' is not another's."""
    ours, theirs = timed.gateway.key("signals", tenant="ours"), timed.gateway.key("signals", tenant="theirs")
    timed.call("alignment_risk=0.9", session, key=ours)
    assert timed.levels(timed.call(session=session, key=theirs)) == {}
    assert timed.levels(timed.call(session=session, key=ours)) == {"alignment_risk": 0.9}


def test_key_without_the_scope_may_raise_guards_only(timed: Timed, session: str) -> None:
    """A caller may warn of itself; it may not make itself trusted, and a refused call leaves nothing behind."""
    key = timed.gateway.key()
    assert timed.levels(timed.call("alignment_risk=0.8", key=key)) == {"alignment_risk": 0.8}
    client = timed.gateway.client(key)
    before = timed.gateway.count("decision")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(
            model="m",
            messages=QUESTION,
            extra_headers={"X-Lukhas-Signals": "alignment_risk=0.9, trust=1", "X-Lukhas-Session": session},
        )
    assert "trust" in caught.value.message and caught.value.code == "forbidden"
    assert timed.gateway.count("decision") == before
    assert timed.levels(timed.call(session=session, key=key)) == {}


def test_answers_say_what_was_decided(timed: Timed) -> None:
    """The headers carry mode, policy and every parameter, also those that no upstream knows."""
    answer = timed.call("alignment_risk=0.8")
    import json

    parameters = json.loads(answer.headers["x-lukhas-parameters"])
    assert parameters["temperature"] == pytest.approx(0.32) and parameters["top_p"] == pytest.approx(0.36)
    assert parameters["tools"] == ["retrieval"] and parameters["safety_mode"] == "strict"
    assert parameters["planner_beam"] == 2 and parameters["retrieval_k"] == 6
    assert answer.headers["x-lukhas-policy"] == timed.gateway.runtime.policies.policy.id
    assert answer.headers["x-lukhas-mode"] == "enforce"


def test_errors_after_the_decision_carry_its_headers(timed: Timed) -> None:
    """Whoever must explain a failed call finds its audit id on the failure."""
    timed.gateway.upstream.reply_raw([])
    answer = timed.call("stress=0.7")
    assert answer.status == 502
    assert timed.gateway.document(answer.headers["x-lukhas-audit-id"])["outcome"]["error"] == "upstream_broken"
    assert answer.headers["x-lukhas-safety-mode"] == "balanced"
