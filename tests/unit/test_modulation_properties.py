"""Properties of decisions under 400 random valid policies: order never matters, guards only tighten, bounds hold."""

from __future__ import annotations

import math
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lukhas import Modulator, Signal
from lukhas.errors import PolicyError
from lukhas.modulation.dispatcher import Decision, Dispatcher
from lukhas.modulation.policy import ParameterSpec, Policy
from lukhas.modulation.policy_reader import load_policy, parse_policy
from lukhas.testing import FrozenClock

FUNCTIONS = [f"{kind}_{i}" for kind in ("a", "b", "c") for i in range(2)] + ["loose_1"]
ENTRIES = ["ka", "kb", "kc", "unknown", *FUNCTIONS]
KNOBS = {"temperature": 0.2, "top_p": 0.2, "memory_write": 0.2, "verbosity": 0.3}
POLICIES = 400
VECTORS = 40


def number(random: Random, low: float = -3.0, high: float = 3.0) -> str:
    value = round(random.uniform(low, high), random.choice([0, 1, 2, 6]))
    return f"{value:g}" if value >= 0 else f"(0 - {-value:g})"


def rising(random: Random, names: list[str], depth: int = 0) -> str:
    """Write an expression that never falls as any of `names` rises."""
    if depth > 3 or random.random() < 0.25:
        return random.choice([*names, number(random)]) if names else number(random)
    a, b = rising(random, names, depth + 1), rising(random, names, depth + 1)
    if names and random.random() < 0.15:
        # A step up: the first value is never above the second.
        at, op = number(random, 0, 1), random.choice([">", ">="])
        return f"(max({a}, {b}) if {random.choice(names)} {op} {at} else min({a}, {b}))"
    forms = [
        f"({a} + {b})",
        f"({a} - {falling(random, names, depth + 1)})",
        f"{number(random, 0, 3)} * ({a})",
        f"({a}) / {number(random, 0.5, 3)}",
        f"min({a}, {b})",
        f"max({a}, {b})",
        f"round({a})",
        f"clamp({a}, {number(random, -3, 0)}, {number(random, 0, 3)})",
    ]
    return random.choice(forms)


def falling(random: Random, names: list[str], depth: int = 0) -> str:
    return f"(0 - {rising(random, names, depth)})" if random.random() < 0.5 else f"(-({rising(random, names, depth)}))"


def write_guard_map(
    random: Random, parameter: str, kind: str, tighter: str, names: list[str], styles: list[str]
) -> str:
    if kind == "tools":
        wide = random.sample(ENTRIES, random.randint(1, 6))
        narrow = random.sample(wide, random.randint(0, len(wide)))
        at = f"{random.choice(names)} > {number(random, 0, 1)}"
        lists = [f"[{', '.join(entries)}]" for entries in (narrow, wide)]
        return random.choice(
            [f"{lists[0]} if {at} else {lists[1]}", f"{lists[0]} if {at} else current", lists[1], "current"]
        )
    if kind == "enum":
        low, high = sorted((random.randint(0, 2), random.randint(0, 2)))
        at = f"{random.choice(names)} > {number(random, 0, 1)}"
        return f"m{low} if {at} else {random.choice([f'm{high}', 'current'] if low == 0 else [f'm{high}'])}"
    others = [name for name in styles if random.random() < 0.2]
    base = rising(random, names) if tighter == "higher" else falling(random, names)
    if others:
        base = f"({base}) + {number(random)} * {random.choice(others)}"
    if random.random() < 0.2:
        base = f"min(current, {base})" if tighter == "lower" else f"max(current, {base})"
    return base


def write_style_map(random: Random, kind: str, names: list[str]) -> str:
    if kind == "tools":
        choice = f"[{', '.join(random.sample(ENTRIES, random.randint(0, 4)))}]"
        return random.choice([choice, f"{choice} if x > 0.5 else current"])
    if kind == "enum":
        return random.choice([f"m{random.randint(0, 2)}", f"m{random.randint(0, 2)} if x > 0.5 else current"])
    text = rising(random, [*names, "x"])
    return random.choice([text, f"current + {text}", f"{number(random)} - {text}", f"current * {number(random)}"])


def write_policy(random: Random) -> str:
    """Write the text of a random policy: one to three guards, styles, numbers, integers, enums and tools."""
    guards = ["alignment_risk", *random.sample(["risk_b", "risk_c"], random.randint(0, 2))]
    styles = random.sample(["stress", "trust", "novelty"], random.randint(0, 3))
    lines = ["version: 1", f"apply: {random.choice(['touched', 'all'])}"]
    lines += [f"combine: {random.choice(['precedence', 'blend'])}", "signals:"]
    lines += [f"  {g}: {{role: guard, min_level: {random.choice([0, 0.05, 0.3])}}}" for g in guards]
    for i, style in enumerate(styles):
        weight = round(random.uniform(0.01, 1), 3)
        lines.append(
            f"  {style}: {{role: style, precedence: {i}, weight: {weight}, min_level: {random.choice([0, 0.2])}}}"
        )
    kinds: dict[str, tuple[str, str]] = {"safety_mode": ("enum", "first"), "tools": ("tools", "subset")}
    lines.append("parameters:")
    first = random.choice(["m0", "m1", "m2"])
    lines.append(f"  safety_mode: {{type: enum, values: [m0, m1, m2], default: {first}, tighter: first}}")
    listed = ", ".join(random.sample(ENTRIES, random.randint(0, 5)))
    lines.append(f"  tools: {{type: tools, default: [{listed}], tighter: subset}}")
    if random.random() < 0.5:
        kinds["manner"] = ("enum", random.choice(["first", ""]))
        tighter = ", tighter: first" * bool(kinds["manner"][1])
        lines.append(
            f"  manner: {{type: enum, values: [m0, m1, m2], default: {random.choice(['m0', 'm1', 'm2'])}{tighter}}}"
        )
    for name in ("temperature", "top_p", "memory_write", "verbosity", "tokens", "effort"):
        kind = "integer" if name == "tokens" or random.random() < 0.2 else "number"
        tighter = random.choice(["lower", "lower", "higher", ""])
        low, high = (
            (random.randint(-3, 0), random.randint(1, 5))
            if kind == "integer"
            else (round(random.uniform(-2, 0), 2), round(random.uniform(0.3, 3), 9))
        )
        default = (
            random.randint(int(low), int(high))
            if kind == "integer"
            else random.choice([low, high, round((low + high) / 2, 9)])
        )
        kinds[name] = (kind, tighter)
        lines.append(
            f"  {name}: {{type: {kind}, default: {default!r}, min: {low!r}, max: {high!r}"
            + f", tighter: {tighter}" * bool(tighter)
            + "}"
        )
    lines.append("maps:")
    for signal in [*guards, *styles]:
        lines.append(f"  {signal}:")
        rows = []
        for name, (kind, tighter) in kinds.items():
            if random.random() < 0.45:
                continue
            if signal in styles:
                rows.append(f'    {name}: "{write_style_map(random, kind, styles)}"')
            elif tighter:
                named = ["x", *(g for g in guards if g != signal and random.random() < 0.4)]
                rows.append(f'    {name}: "{write_guard_map(random, name, kind, tighter, named, styles)}"')
        lines[-1] += " {}" * (not rows)
        lines += rows
    lines += [
        "styles: {s0: {}, s1: {}}",
        "style_rules:",
        "  - {style: s1, when: safety_mode == m0 or alignment_risk > 0.6}",
        "  - {style: s0}",
    ]
    lines += ["tools:", *(f"  k{k}: {{functions: [{k}_0], patterns: ['{k}_*']}}" for k in "abc")]
    # The functions of a pattern are listed too, so that a list may name them.
    lines += (
        ["  named: {functions: [a_1, b_1, c_1, loose_1]}"]
        if random.random() < 0.5
        else ["  named: {functions: [loose_1]}"]
    )
    text = "\n".join(lines)
    if "a_1" not in text.split("tools:")[-1]:
        for k in "abc":
            text = text.replace(f"functions: [{k}_0]", f"functions: [{k}_0, {k}_1]")
    knobs = [
        f"  {name}: {{min: {-most if name != 'memory_write' else 0}, max: {most}}}" for name, most in KNOBS.items()
    ]
    return text + "\nfeedback:\n" + "\n".join(knobs) + "\n"


@cache
def random_policies() -> list[Policy]:
    """Load random policies until there are enough; those that the loader refuses are not part of the promise."""
    random = Random(20260101)
    found: list[Policy] = []
    refused = 0
    while len(found) < POLICIES:
        try:
            found.append(parse_policy(write_policy(random)))
        except PolicyError:
            refused += 1
    assert refused < POLICIES * 2
    return found


def is_tighter_or_equal(policy: Policy, spec: ParameterSpec, value: Any, than: Any) -> bool:
    if spec.tighter == "lower":
        return value <= than
    if spec.tighter == "higher":
        return value >= than
    if spec.tighter == "first":
        return spec.values.index(value) <= spec.values.index(than)
    names = [*FUNCTIONS, "a_9", "other"]
    return {n for n in names if policy.allows_tool(value, n)} <= {n for n in names if policy.allows_tool(than, n)}


def callers(policy: Policy, random: Random) -> dict[str, Any]:
    """Make a caller's own values: in bounds, at them, and far outside."""
    own: dict[str, Any] = {}
    for name, spec in policy.parameters.items():
        if random.random() < 0.5 or spec.kind == "tools":
            continue
        if spec.kind == "enum":
            own[name] = random.choice(spec.values)
        else:
            own[name] = random.choice(
                [spec.low, spec.high, spec.low - 1.5, spec.high + 2.25, 1e6, -7, random.uniform(-3, 3), 0.1234567894321]
            )
    return own


def nudges_of(random: Random) -> dict[str, float]:
    deltas = [-0.3, -0.2, -0.05, -1e-12, 1e-12, 0.05, 0.2, 5.0, math.nan]
    return {name: random.choice(deltas) for name in [*KNOBS, "tokens", "safety_mode"] if random.random() < 0.5}


def assert_tighter(policy: Policy, tight: Decision, loose: Decision, own: dict[str, Any], context: object) -> None:
    dispatcher = Dispatcher(policy)
    for name, spec in policy.parameters.items():
        if spec.tighter is None:
            continue
        pair = tight.parameters[name], loose.parameters[name]
        assert is_tighter_or_equal(policy, spec, *pair), (name, *pair, context, policy.text)
        probes: list[Any] = [own[name]] if name in own else []
        if spec.kind in ("number", "integer"):
            probes += [spec.low - 1, spec.low, spec.high, spec.high + 1, spec.default]
        elif spec.kind == "enum":
            probes += list(spec.values)
        else:
            probes += [ENTRIES, ["ka", "b_0"]]
        for probe in probes:
            kept = dispatcher.limit(tight, name, probe), dispatcher.limit(loose, name, probe)
            assert is_tighter_or_equal(policy, spec, *kept), (name, "limit", probe, *kept, context, policy.text)


def raise_one(policy: Policy, levels: dict[str, float], random: Random) -> dict[str, float]:
    guard = random.choice(sorted(policy.guards))
    now = levels.get(guard)
    least = policy.signals[guard].min_level
    if now is None or now < least:
        target = random.choice([least, math.nextafter(least, 2.0), 1.0, random.uniform(least, 1.0)])
    else:
        target = random.choice([1.0, min(1.0, math.nextafter(now, 2.0)), random.uniform(now, 1.0)])
    return {**levels, guard: min(1.0, target)}


def test_guard_raised_is_never_looser_under_random_policies() -> None:
    """I1: over 16,000 vectors, no raise of a guard loosens a decision or what a caller keeps."""
    checked = moved = 0
    for number_, policy in enumerate(random_policies()):
        random = Random(number_)
        dispatcher = Dispatcher(policy)
        for _ in range(VECTORS):
            grid = [0.0, 0.05, 0.3, 0.5, 0.7, 1.0, random.random()]
            levels = {name: random.choice(grid) for name in policy.signals if random.random() < 0.7}
            raised = raise_one(policy, levels, random)
            own = callers(policy, random) if random.random() < 0.7 else {}
            nudges = nudges_of(random) if random.random() < 0.7 else {}
            loose = dispatcher.decide(levels, caller=own, nudges=nudges)
            tight = dispatcher.decide(raised, caller=own, nudges=nudges)
            assert_tighter(policy, tight, loose, own, (levels, raised, own, nudges))
            checked += 1
            moved += tight.parameters != loose.parameters
    assert checked >= 10_000
    assert moved > checked / 5


def test_decision_stays_inside_bounds_under_random_policies() -> None:
    """Whatever the policy sets lies in its bounds and has the parameter's type."""
    for number_, policy in enumerate(random_policies()):
        random = Random(number_ + 1)
        for _ in range(5):
            levels = {name: random.random() for name in policy.signals if random.random() < 0.7}
            decision = Dispatcher(policy).decide(levels, nudges=nudges_of(random))
            for name, spec in policy.parameters.items():
                value = decision.parameters[name]
                if spec.kind in ("number", "integer"):
                    assert spec.low <= value <= spec.high
                    assert spec.kind == "number" or isinstance(value, int)
                elif spec.kind == "enum":
                    assert value in spec.values
            assert set(decision.limits) <= set(decision.touched)


def test_feedback_stays_in_its_box_under_random_policies() -> None:
    """I2: a nudge moves only its own parameters, by no more than its table, never past a guard, never the mode."""
    for number_, policy in enumerate(random_policies()):
        random = Random(number_ + 2)
        dispatcher = Dispatcher(policy)
        for _ in range(10):
            levels = {name: random.random() for name in policy.signals if random.random() < 0.7}
            own = callers(policy, random) if random.random() < 0.5 else {}
            plain = dispatcher.decide(levels, caller=own)
            nudged = dispatcher.decide(
                levels, caller=own, nudges={**dict.fromkeys(policy.parameters, 9.0), **nudges_of(random)}
            )
            for name in policy.parameters:
                before, after = plain.parameters[name], nudged.parameters[name]
                if name not in KNOBS:
                    assert after == before
                elif policy.parameters[name].kind == "number":
                    assert abs(after - before) <= KNOBS[name] + 1e-8
            assert (nudged.style, nudged.tools, nudged.safety_mode) == (plain.style, plain.tools, plain.safety_mode)


def test_feedback_loosens_nothing_in_the_strictest_mode() -> None:
    """I2: where the safety mode is the strictest, a nudge may tighten and never loosen."""
    policy = load_policy()
    dispatcher = Dispatcher(policy)
    for own in ({}, {"temperature": 0.05, "top_p": 0.1, "memory_write": 0.1}):
        plain = dispatcher.decide({"alignment_risk": 0.9}, caller=own)
        up = dispatcher.decide({"alignment_risk": 0.9}, caller=own, nudges=dict.fromkeys(KNOBS, 0.2))
        down = dispatcher.decide({"alignment_risk": 0.9}, caller=own, nudges=dict.fromkeys(KNOBS, -0.2))
        for name in ("temperature", "top_p", "memory_write"):
            assert up.parameters[name] == plain.parameters[name]
            assert down.parameters[name] <= plain.parameters[name]


def test_meeting_of_tool_lists_admits_what_both_admit() -> None:
    """The meeting of two allowlists is exact over functions, whether they name classes or functions."""
    random = Random(5)
    names = [*FUNCTIONS, "a_9", "other", "ka", "unknown"]
    for policy in random_policies()[:100]:
        for _ in range(20):
            a, b = (random.sample(ENTRIES, random.randint(0, 6)) for _ in range(2))
            met = policy.meet_tools(a, b)
            for name in names:
                both = policy.allows_tool(a, name) and policy.allows_tool(b, name)
                assert policy.allows_tool(met, name) == both, (a, b, met, name)


PACKAGED = load_policy()
CLOCK = FrozenClock()
signals = st.builds(
    Signal,
    name=st.sampled_from(list(PACKAGED.signals)),
    level=st.one_of(st.sampled_from([0.0, 0.05, 0.2, 0.3, 0.5, 0.7, 1.0]), st.floats(0, 1)),
    ttl_ms=st.one_of(st.none(), st.integers(1, 100_000)),
    source=st.sampled_from(["", "a", "b"]),
    ts=st.one_of(st.none(), st.integers(-120_000, 5000).map(lambda ms: (CLOCK.now_ms() + ms) / 1000)),
)


@pytest.mark.parametrize("combine", ["precedence", "blend"])
@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(signals, max_size=10), st.randoms(use_true_random=False))
def test_combine_any_permutation_gives_the_same_decision(combine: str, emitted: list[Signal], random: Random) -> None:
    """Duplicates of a name, moments and both modes of combining included, order never matters."""
    text = PACKAGED.text.replace("combine: precedence", f"combine: {combine}")
    modulator = Modulator(policy=_load(text), clock=CLOCK)
    expected = modulator.combine(emitted, caller={"temperature": 0.9}, nudges={"top_p": 0.1})
    for _ in range(4):
        shuffled = list(emitted)
        random.shuffle(shuffled)
        assert modulator.combine(iter(shuffled), caller={"temperature": 0.9}, nudges={"top_p": 0.1}) == expected


@cache
def _load(text: str) -> Policy:
    return parse_policy(text)


class TickingClock(FrozenClock):
    """A clock that moves on at every look."""

    def now_ms(self) -> int:
        self.advance(1000)
        return super().now_ms()


def test_combine_under_a_moving_clock_is_still_order_free() -> None:
    """All signals of one call are weighed at one moment."""
    start_s = FrozenClock().now_ms() / 1000
    emitted = [Signal("stress", 0.9, ts=start_s), Signal("novelty", 0.9, ts=start_s), Signal("trust", 0.9, ts=start_s)]
    forth = Modulator(clock=TickingClock()).combine(emitted)
    assert Modulator(clock=TickingClock()).combine(emitted[::-1]) == forth
