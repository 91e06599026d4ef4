"""Signal state: decay, lifetimes, scopes, cooldown and bounds, under a clock that stands still."""

from __future__ import annotations

import math
from random import Random

import pytest

from lukhas.errors import SignalError, UnknownSignal
from lukhas.modulation.policy import Role, SignalSpec
from lukhas.modulation.state import MAX_FRONT, Receipt, ScopeName, SignalState, Subject, decayed_level
from lukhas.testing import FrozenClock

SESSION = Subject("session", "sub_a")
USER = Subject("user", "sub_u")
KEY = Subject("key", "key_1")
TENANT = Subject("tenant", "acme")
EVERYONE = Subject("everyone", "")
CALL = [SESSION, USER, KEY, TENANT, EVERYONE]


def spec(name: str, role: Role, *, half_life_ms: int | None = 10_000, cooldown_ms: int = 0) -> SignalSpec:
    return SignalSpec(name, role, 1, 1.0, cooldown_ms, 60_000, 600_000, half_life_ms, 0.05 if role == "guard" else 0.2)


SPECS = {
    "risk": spec("risk", "guard"),
    "hold": spec("hold", "guard", half_life_ms=None),
    "stress": spec("stress", "style", cooldown_ms=800),
    "trust": spec("trust", "style", half_life_ms=None),
}


class World:
    """A state with its clock, and short ways to speak to it."""

    def __init__(self, **options: int) -> None:
        self.clock = FrozenClock()
        self.state = SignalState(SPECS, self.clock, **options)

    def emit(
        self,
        signal: str,
        level: float,
        subject: Subject = SESSION,
        *,
        ttl_ms: int | None = None,
        source: str = "s",
        owner: str = "key_1",
    ) -> Receipt:
        return self.state.emit(subject, signal, level, ttl_ms=ttl_ms, source=source, owner=owner)

    def level(self, signal: str, subjects: list[Subject] | None = None) -> float | None:
        found = self.state.levels(CALL if subjects is None else subjects).get(signal)
        return None if found is None else found.level


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("signal", ["hold", "trust"])
def test_ttl_is_exact_to_the_millisecond(world: World, signal: str) -> None:
    """An emission counts until its ttl has passed, and not one millisecond longer."""
    world.emit(signal, 0.9, ttl_ms=5000)
    world.clock.advance(4999)
    assert world.level(signal) == 0.9
    world.clock.advance(1)
    assert world.level(signal) is None


def test_ttl_longer_than_the_policy_allows_is_cut(world: World) -> None:
    """The policy's max_ttl_ms caps what an emission may ask for."""
    receipt = world.emit("hold", 0.9, ttl_ms=86_400_000)
    assert receipt.expires_ms == world.clock.now_ms() + 600_000
    world.clock.advance(600_000)
    assert world.level("hold") is None


@pytest.mark.parametrize("age_ms", [0, 1, 999, 5000, 10_000, 19_999])
def test_decay_follows_the_half_life_to_the_millisecond(world: World, age_ms: int) -> None:
    """The level is emitted * 2^(-age / half_life) at every millisecond."""
    world.emit("risk", 0.8)
    world.clock.advance(age_ms)
    assert world.level("risk") == 0.8 * 2 ** (-age_ms / 10_000)


def test_level_below_minimum_is_absent(world: World) -> None:
    """A signal that decayed below its minimum level counts as absent, from that millisecond on."""
    world.emit("stress", 0.4)
    world.clock.advance(10_000)
    assert world.level("stress") == 0.2
    world.clock.advance(1)
    assert world.level("stress") is None


@pytest.mark.parametrize("second", [(0.3, None), (0.3, 60_000), (0.8, 100), (0.05, 1)])
def test_guard_second_emission_never_lowers(world: World, second: tuple[float, int | None]) -> None:
    """Neither a lower level nor a shorter ttl of the same source takes anything away."""
    world.emit("risk", 0.8, ttl_ms=30_000)
    world.clock.advance(1000)
    before = world.level("risk")
    world.emit("risk", second[0], ttl_ms=second[1])
    assert world.level("risk") == pytest.approx(max(before or 0, second[0]))
    world.clock.advance(28_999)
    assert world.level("risk") is not None
    assert (world.level("risk") or 0) >= 0.8 * 2 ** (-29_999 / 10_000) - 1e-12


def test_guard_lower_but_longer_emission_takes_over_when_the_higher_ends(world: World) -> None:
    """Emissions that do not dominate each other are all kept."""
    world.emit("hold", 0.9, ttl_ms=1000)
    world.emit("hold", 0.4, ttl_ms=5000)
    assert world.level("hold") == 0.9
    world.clock.advance(1000)
    assert world.level("hold") == 0.4
    world.clock.advance(4000)
    assert world.level("hold") is None


def test_guard_two_emissions_within_a_second_both_count(world: World) -> None:
    """A guard has no cooldown: the higher of two counts, whichever came first."""
    world.emit("risk", 0.3)
    world.clock.advance(400)
    assert world.emit("risk", 0.9).accepted
    assert world.level("risk") == 0.9
    other = World()
    other.emit("risk", 0.9, source="a")
    other.clock.advance(400)
    assert other.emit("risk", 0.3, source="b").accepted
    assert other.level("risk") == 0.9 * 2 ** (-400 / 10_000)
    assert len(other.state.holdings([SESSION])) == 2


def test_clock_stepping_back_never_exceeds_the_emitted_level(world: World) -> None:
    """A wall clock that is set back makes nothing higher than it was emitted."""
    world.clock.advance(100_000)
    world.emit("risk", 0.8)
    world.emit("stress", 0.6)
    for _ in range(5):
        world.clock.step_back(20_000)
        assert world.level("risk") == 0.8
        assert world.level("stress") == 0.6
        assert all(held.level <= held.emitted_level for held in world.state.holdings(CALL))


def test_clock_stepping_back_keeps_the_cooldown(world: World) -> None:
    """The cooldown runs on the monotonic clock, which a time server cannot set."""
    world.emit("stress", 0.9)
    world.clock.step_back(3_600_000)
    assert not world.emit("stress", 0.3).accepted
    world.clock.advance(800)
    assert world.emit("stress", 0.3).accepted


def test_style_inside_cooldown_holds_the_last_value(world: World) -> None:
    """Inside the cooldown an emission is ignored and the last one holds; at its end the next is taken."""
    world.emit("stress", 0.9)
    world.clock.advance(799)
    receipt = world.emit("stress", 0.3)
    assert (receipt.accepted, receipt.retry_after_ms) == (False, 1)
    assert receipt.level == world.level("stress") == 0.9 * 2 ** (-799 / 10_000)
    world.clock.advance(1)
    assert world.emit("stress", 0.3).accepted
    assert world.level("stress") == 0.3


def test_style_cooldown_outlives_a_short_ttl(world: World) -> None:
    """An emission that ends inside its own cooldown does not make room for the next one."""
    world.emit("stress", 0.9, ttl_ms=1)
    world.clock.advance(10)
    assert world.level("stress") is None
    world.state.sweep()
    receipt = world.emit("stress", 0.3)
    assert (receipt.accepted, receipt.level, receipt.retry_after_ms) == (False, 0.0, 790)
    assert world.level("stress") is None
    world.clock.advance(790)
    assert world.emit("stress", 0.3).accepted


@pytest.mark.parametrize(
    ("subject", "source"), [(USER, "s"), (SESSION, "other")], ids=["other-subject", "other-source"]
)
def test_style_cooldown_is_per_source_and_subject(world: World, subject: Subject, source: str) -> None:
    """A cooldown holds back one source at one subject and nobody else."""
    world.emit("stress", 0.9)
    assert world.emit("stress", 0.3, subject, source=source).accepted


def test_style_nearest_scope_counts(world: World) -> None:
    """A style's level is the nearest subject's that has one, be it lower."""
    for level, subject in ((0.9, EVERYONE), (0.8, TENANT), (0.7, KEY), (0.6, USER), (0.5, SESSION)):
        world.emit("trust", level, subject, ttl_ms=int(level * 10_000))
        assert world.level("trust") == level
    for level, scope in ((0.6, "user"), (0.7, "key"), (0.8, "tenant"), (0.9, "everyone")):
        world.clock.advance(1000 if level > 0.6 else 5000)
        found = world.state.levels(CALL)["trust"]
        assert (found.level, found.scope) == (level, scope)


def test_style_of_several_sources_takes_the_latest(world: World) -> None:
    """Of several sources at one subject the one that spoke last counts."""
    world.emit("trust", 0.9, source="a")
    world.clock.advance(1)
    world.emit("trust", 0.4, source="b")
    assert world.level("trust") == 0.4


def test_guard_maximum_over_scopes_counts(world: World) -> None:
    """A guard's level is the maximum over every subject that a call names, and of no other."""
    world.emit("risk", 0.3, SESSION)
    world.emit("risk", 0.7, TENANT)
    world.emit("risk", 1.0, Subject("session", "sub_b"))
    found = world.state.levels(CALL)["risk"]
    assert (found.level, found.scope) == (0.7, "tenant")
    assert world.level("risk", [SESSION]) == 0.3
    assert world.level("risk", []) is None


def test_guard_below_minimum_at_one_scope_leaves_the_other(world: World) -> None:
    """A level below the minimum neither counts nor hides another."""
    world.emit("risk", 0.04, SESSION)
    world.emit("risk", 0.06, EVERYONE)
    assert world.level("risk") == 0.06


@pytest.mark.parametrize(
    ("level", "ttl_ms"), [(2, None), (math.nan, None), (-0.1, None), (0.5, 0), (0.5, -1), (0.5, 1.5)]
)
def test_emit_wrong_value_is_refused(world: World, level: float, ttl_ms: int | None) -> None:
    """What is no signal does not enter the state, whoever hands it in."""
    with pytest.raises(SignalError):
        world.emit("risk", level, ttl_ms=ttl_ms)
    assert world.state.holdings(CALL) == []


def test_emit_unknown_signal_is_refused(world: World) -> None:
    """A name that the policy does not declare is an error."""
    with pytest.raises(UnknownSignal, match="risk, hold, stress, trust"):
        world.emit("rsk", 0.5)


def test_front_of_one_source_is_bounded_and_never_lower(world: World) -> None:
    """Very many emissions that do not dominate each other are folded upwards."""
    emitted = [(0.9 - i * 0.002, 1000 + 500 * i) for i in range(200)]
    for level, ttl_ms in emitted:
        world.emit("hold", level, ttl_ms=ttl_ms)
    assert len(world.state.holdings([SESSION])) <= MAX_FRONT
    for _ in range(220):
        left = [level for level, ttl_ms in emitted if world.clock.monotonic_ms() < ttl_ms]
        assert (world.level("hold") or 0.0) >= max(left, default=0.0)
        assert (world.level("hold") or 0.0) <= 0.9
        world.clock.advance(499)


def test_overflow_evicts_the_oldest_style_first() -> None:
    """Past its limit a key loses its oldest style entries, and no guard."""
    world = World(entries_per_key=3)
    world.emit("risk", 0.9, Subject("session", "g"))
    for name in "abc":
        world.emit("trust", 0.5, Subject("session", name))
    left = {name for name in "abcg" if world.state.holdings([Subject("session", name)])}
    assert left == {"b", "c", "g"}


def test_overflow_says_when_a_style_found_no_place() -> None:
    """A style emission of a key that is full of guards is not taken, and its receipt says so."""
    world = World(entries_per_key=2)
    for name in "ab":
        world.emit("risk", 0.9, Subject("session", name))
    assert not world.emit("trust", 0.5).accepted
    assert world.level("trust") is None


def test_overflow_folds_guards_into_the_key() -> None:
    """Guard entries past the limit move to the key itself, where they hold for all of its calls."""
    world = World(entries_per_key=4)
    for i in range(50):
        world.emit("risk", (i + 1) / 100, Subject("session", f"s{i}"))
    for i in range(50):
        assert (world.level("risk", [Subject("session", f"s{i}"), KEY]) or 0) >= (i + 1) / 100
    assert len(world.state.holdings([KEY])) == 1


@pytest.mark.parametrize("scope", ["tenant", "everyone", "key"])
def test_overflow_leaves_what_holds_for_others(scope: ScopeName) -> None:
    """A guard for a tenant, another key or everyone is not folded: it would stop to hold for the rest of them."""
    world = World(entries_per_key=2)
    wide = Subject(scope, "wide")
    world.emit("risk", 0.95, wide)
    for i in range(20):
        world.emit("risk", 0.1, Subject("session", f"s{i}"))
    assert world.level("risk", [wide]) == 0.95


def test_overflow_of_one_owner_keeps_what_another_emitted() -> None:
    """Two keys that speak of one session do not lose each other's guards when one of them overflows."""
    world = World(entries_per_key=2)
    world.emit("risk", 0.9, SESSION, owner="key_2")
    world.emit("risk", 0.8, SESSION, owner="key_1")
    for i in range(10):
        world.emit("risk", 0.1, Subject("session", f"s{i}"), owner="key_1")
    assert world.level("risk", [SESSION, Subject("key", "key_2")]) == 0.9
    assert (world.level("risk", [SESSION, KEY]) or 0) >= 0.8
    for i in range(10):
        world.emit("risk", 0.1, Subject("session", f"t{i}"), owner="key_2")
    assert (world.level("risk", [SESSION, KEY]) or 0) >= 0.8


def test_memory_stays_bounded_over_many_sessions_and_sources() -> None:
    """100,000 sessions, and as many sources, leave no more entries than the limit."""
    world = World(entries_per_key=200)
    random = Random(7)
    for i in range(100_000):
        subject = Subject("session", f"s{i}") if i % 3 else KEY
        world.emit(random.choice(list(SPECS)), random.random(), subject, source=f"source{i}", ttl_ms=60_000)
        if i % 1000 == 0:
            world.clock.advance(100)
    assert world.state.sweep() <= 200 + MAX_FRONT * len(SPECS)
    world.clock.advance(600_000)
    assert world.state.sweep() == 0


def test_sweep_drops_what_expired_and_keeps_the_rest(world: World) -> None:
    """Sweeping changes no level; it only lets go of what is over."""
    world.emit("hold", 0.9, ttl_ms=1000)
    world.emit("hold", 0.5, ttl_ms=5000)
    world.emit("trust", 0.5, USER, ttl_ms=1000)
    assert world.state.sweep() == 3
    world.clock.advance(1000)
    assert world.state.sweep() == 1
    assert world.level("hold") == 0.5


def test_configure_drops_names_that_the_new_policy_lacks(world: World) -> None:
    """After a change of policy only its own signals are left."""
    world.emit("risk", 0.9)
    world.emit("trust", 0.9)
    world.state.configure({"risk": SPECS["risk"]})
    assert [held.signal for held in world.state.holdings(CALL)] == ["risk"]
    assert world.level("risk") == 0.9


def test_configure_refiles_a_signal_whose_role_changed() -> None:
    """A style that becomes a guard is never lowered from then on; a guard that becomes a style can be."""
    world = World(entries_per_key=3)
    world.emit("trust", 0.5, ttl_ms=50_000)
    world.emit("risk", 0.9, ttl_ms=100)
    world.emit("risk", 0.3, ttl_ms=50_000)
    world.state.configure({"trust": spec("trust", "guard", half_life_ms=None), "risk": spec("risk", "style")})
    world.emit("trust", 0.3)
    assert world.level("trust") == 0.5
    world.clock.advance(10)
    world.emit("risk", 0.25)
    assert world.level("risk") == 0.25
    for i in range(20):
        world.emit("trust", 0.1, Subject("session", f"s{i}"))
        world.emit("risk", 0.9, Subject("session", f"s{i}"))
    assert (world.level("trust") or 0) >= 0.5
    world.clock.advance(600_000)
    assert world.state.sweep() == 0


def test_holdings_list_what_is_alive_with_time_left(world: World) -> None:
    """The listing shows emitted and current level, source, scope and remaining life."""
    world.emit("risk", 0.8, USER, ttl_ms=20_000, source="moderation")
    world.clock.advance(10_000)
    (held,) = world.state.holdings(CALL)
    assert (held.signal, held.scope, held.source) == ("risk", "user", "moderation")
    assert (held.level, held.emitted_level, held.expires_in_ms) == (0.4, 0.8, 10_000)


def test_decayed_level_without_half_life_holds() -> None:
    """A signal without half-life keeps its level for its whole life; a very old one decays to 0, not to an error."""
    assert decayed_level(0.7, 10**12, None) == 0.7
    assert decayed_level(0.7, 10**12, 1) == 0.0
