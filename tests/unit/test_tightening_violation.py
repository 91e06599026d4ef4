"""From violations to raised levels: how they add up, how far they reach, and that nothing lowers them."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lukhas.access.ring import ApiKey
from lukhas.gateway.intake import list_subjects
from lukhas.gateway.tightening import SOURCE, Raised, tighten
from lukhas.gateway.violation import Violation
from lukhas.ids import make_id
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import load_policy
from lukhas.modulation.state import SignalState, Subject
from lukhas.testing import FrozenClock

POLICY = load_policy()
RISK = "alignment_risk"


def make_key(name: str = "one", tenant: str = "acme") -> ApiKey:
    return ApiKey(key_id=f"key_{name}", name=name, tenant=tenant, scopes=frozenset(), created_ms=0)


def violate(severity: str = "high") -> Violation:
    return Violation(make_id("inc"), "input", "injection", "injection.x", severity, "block")  # type: ignore[arg-type]


class Scene:
    """A state and a clock, and calls that violate."""

    def __init__(self, policy: Policy = POLICY, entries_per_key: int = 10_000) -> None:
        self.policy = policy
        self.clock = FrozenClock()
        self.state = SignalState(policy.signals, self.clock, entries_per_key=entries_per_key)

    def violate(
        self, *severities: str, session: str | None = None, user: str | None = None, key: ApiKey | None = None
    ) -> tuple[Raised, ...]:
        key = key or make_key()
        subjects = list_subjects(session, user, key)
        found = [violate(one) for one in severities]
        return tighten(self.state, self.policy, subjects, found, key, self.clock.now_ms())

    def level(self, session: str | None = None, user: str | None = None, key: ApiKey | None = None) -> float:
        found = self.state.levels(list_subjects(session, user, key or make_key())).get(RISK)
        return 0.0 if found is None else found.level


def scopes(raised: tuple[Raised, ...]) -> dict[str, float]:
    return {one.scope: round(one.level, 6) for one in raised}


@pytest.mark.parametrize(
    ("severity", "level"), [pytest.param("low", 0.3), pytest.param("medium", 0.5), pytest.param("high", 0.8)]
)
def test_tighten_one_violation_counts_for_the_next_decision(severity: str, level: float) -> None:
    """The severity's level is there at once, named as a violation's."""
    scene = Scene()
    assert scopes(scene.violate(severity, session="s")) == {"session": level}
    found = scene.state.levels(list_subjects("s", None, make_key()))[RISK]
    assert (found.level, found.scope, found.source) == (level, "session", SOURCE)
    assert scene.level(session="other") == 0


@pytest.mark.parametrize(
    ("session", "user", "expected"),
    [
        pytest.param("s", "u", {"session": 0.5, "user": 0.5}, id="both-named"),
        pytest.param("s", None, {"session": 0.5}, id="session"),
        pytest.param(None, "u", {"user": 0.5}, id="user"),
        pytest.param(None, None, {"key": 0.5}, id="nobody-named"),
    ],
)
def test_tighten_raises_each_scope_that_the_call_names(
    session: str | None, user: str | None, expected: dict[str, float]
) -> None:
    """Up to the end user; where neither is named, the key."""
    assert scopes(Scene().violate("medium", session=session, user=user)) == expected


def test_tighten_violations_add_up_to_the_ceiling_and_no_further() -> None:
    """What is held and what is new combine as independent chances."""
    scene = Scene()
    scene.violate("low", user="u")
    assert scopes(scene.violate("low", user="u"))["user"] == pytest.approx(0.51)
    assert scopes(scene.violate("medium", user="u"))["user"] == pytest.approx(0.755)
    for _ in range(20):
        scene.violate("high", user="u")
    assert scene.level(user="u") == 0.95


def test_tighten_violations_found_together_count_once_by_the_gravest() -> None:
    """A text that several rules match reaches no further than one that a single rule matches."""
    assert scopes(Scene().violate("low", "high", "medium", "high", session="s")) == {"session": 0.8}


def test_tighten_holds_count_as_they_have_decayed() -> None:
    """After a half-life the earlier violation weighs half."""
    scene = Scene()
    scene.violate("high", user="u")
    scene.clock.advance(120_000)
    assert scopes(scene.violate("medium", user="u"))["user"] == pytest.approx(1 - 0.6 * 0.5)


@pytest.mark.parametrize(
    ("session", "user", "wider"),
    [
        pytest.param("s", None, "key", id="session-to-key"),
        pytest.param("s", "u", "key", id="user-to-key"),
        pytest.param(None, "u", "key", id="user-alone-to-key"),
        pytest.param(None, None, "tenant", id="key-to-tenant"),
    ],
)
def test_tighten_past_the_threshold_rises_one_scope_further(session: str | None, user: str | None, wider: str) -> None:
    """The first grave violation stays with its subject; the second reaches one scope further, and never two."""
    scene = Scene()
    assert wider not in scopes(scene.violate("high", session=session, user=user))
    raised = scopes(scene.violate("high", session=session, user=user))
    assert raised[wider] == 0.8
    for _ in range(10):
        reached = set(scopes(scene.violate("high", session=session, user=user)))
        assert reached == {name for name, given in (("session", session), ("user", user)) if given} | (
            {wider} if session or user else {"key", "tenant"}
        )


def test_tighten_explicit_emissions_are_no_violations() -> None:
    """What somebody emitted by hand is neither added to nor lowered."""
    scene = Scene()
    scene.state.emit(Subject("user", "u"), RISK, 0.9, ttl_ms=None, source="api:key_one", owner="key_one")
    assert scopes(scene.violate("low", user="u")) == {"user": 0.3}
    assert scene.level(user="u") == 0.9


def test_tighten_counts_what_other_keys_of_the_tenant_have_raised() -> None:
    """An end user who violates by two keys is one end user."""
    scene = Scene()
    scene.violate("medium", user="u", key=make_key("one"))
    raised = scene.violate("medium", user="u", key=make_key("two"))
    assert scopes(raised) == {"user": 0.75}
    assert scene.level(user="u", key=make_key("one")) == 0.75


def test_tighten_under_a_lower_ceiling_lowers_nothing() -> None:
    """A policy change that lowers the ceiling does not lower what is held."""
    scene = Scene()
    for _ in range(4):
        scene.violate("high", user="u")
    lower = dataclasses.replace(POLICY.violations, high=0.5, ceiling=0.5)
    scene.policy = dataclasses.replace(POLICY, violations=lower)
    assert scopes(scene.violate("high", user="u"))["user"] == 0.95
    assert scene.level(user="u") == 0.95


def test_tighten_without_violations_raises_nothing() -> None:
    """No violation, no emission."""
    scene = Scene()
    assert scene.violate(session="s") == ()
    assert scene.state.sweep() == 0


def test_tighten_a_flood_of_subjects_lowers_nobody() -> None:
    """Past the key's room guards fold into the key: each call of the key is decided at least as tightly as before."""
    scene = Scene(entries_per_key=50)
    for number in range(400):
        scene.violate("high", session=f"s{number}")
        assert scene.level(session="s0") >= 0.8 - 1e-12
        assert scene.level(session=f"s{number}") >= 0.8 - 1e-12
    assert scene.level(session="never seen") >= 0.8 - 1e-12
    assert scene.level(session="s0", key=make_key("other")) == 0 or scene.level(session="s0") >= 0.8


def test_tighten_a_clock_that_is_set_back_lowers_nothing() -> None:
    """A violation after the step still adds to what is held."""
    scene = Scene()
    scene.violate("high", user="u")
    scene.clock.step_back(3_600_000)
    assert scopes(scene.violate("medium", user="u"))["user"] == pytest.approx(0.9)
    assert scene.level(user="u") == pytest.approx(0.9)


TENANTS = ("acme", "zeta")
calls = st.tuples(
    st.sampled_from(["low", "medium", "high"]),
    st.sampled_from([None, "1", "2"]),
    st.sampled_from([None, "1"]),
    st.sampled_from(["1", "2"]),
    st.sampled_from([0, 1, 5_000, 400_000]),
)


@settings(max_examples=150)
@given(st.lists(calls, max_size=40), st.integers(1, 8))
def test_tighten_never_reaches_another_tenant(script: list[tuple], room: int) -> None:
    """Whatever one tenant's calls violate, no level of another's calls changes, and none of its own falls."""
    scene = Scene(entries_per_key=room)
    theirs = make_key("theirs", "zeta")
    scene.violate("medium", session="sub_z", user="sub_zu", key=theirs)
    for severity, session, user, name, wait_ms in script:
        key = make_key(name, "acme")
        scene.clock.advance(wait_ms)
        before = scene.state.levels(list_subjects("sub_z", "sub_zu", theirs))
        own = (None if session is None else f"sub_s{session}", None if user is None else f"sub_u{user}")
        held = scene.level(*own, key=key)
        raised = scene.violate(severity, session=own[0], user=own[1], key=key)
        assert scene.state.levels(list_subjects("sub_z", "sub_zu", theirs)) == before
        assert scene.level(*own, key=key) >= max(held, max(one.level for one in raised)) - 1e-12
        assert all(one.scope != "everyone" and (one.scope != "tenant" or one.id == "acme") for one in raised)
        assert all(0 < one.level <= POLICY.violations.ceiling for one in raised)
