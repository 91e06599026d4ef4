"""Signal levels in, one bounded and explained decision out.

The order of the steps is the contract (docs/explanation/modulation.md): styles decide, guards tighten, bounds limit,
feedback nudges, the caller may only be tighter, and caps and bounds are applied once more last. Nothing here depends
on the order in which signals came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from lukhas.clock import Clock, SystemClock
from lukhas.modulation import tightness
from lukhas.modulation.policy import SAFETY_MODE, TOOLS, ParameterSpec, Policy, Rule, StyleRule, Value
from lukhas.modulation.policy_reader import load_policy
from lukhas.modulation.signals import Signal, check_level, require_known
from lukhas.modulation.state import decayed_level


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change on the way to a decision.

    Attributes:
        parameter: what changed.
        step: 'style', 'guard', 'bounds', 'nudge', 'caller', 'choose', or, from the gateway, 'capability', 'tools'.
        before, after: its value around this step.
        signal: the signal that caused it, if one did.
        level: that signal's effective level, a ratio in [0, 1].
        rule: the rule's text in the policy, or what was done in words.
        place: where the rule stands in the policy file.
    """

    parameter: str
    step: str
    before: Any
    after: Any
    signal: str = ""
    level: float = -1.0
    rule: str = ""
    place: str = ""


class Decision(msgspec.Struct):
    """What to do with one call, and why.

    Attributes:
        policy: id of the policy that decided.
        parameters: the value of every parameter, `safety_mode` and `tools` among them.
        style: the chosen prompt style.
        touched: parameters that are written into the call.
        limits: for each touched parameter with a direction, the loosest value that a caller may keep.
        levels: effective levels of the signals that were present.
        trace: every step that changed something, in order.
    """

    policy: str
    parameters: dict[str, Any]
    style: str
    touched: list[str]
    limits: dict[str, Any]
    levels: dict[str, float]
    trace: list[Step]

    @property
    def tools(self) -> list[str]:
        """The allowlist: tool classes and names."""
        return cast("list[str]", self.parameters[TOOLS])

    @property
    def safety_mode(self) -> str:
        """How strict the call is."""
        return cast(str, self.parameters[SAFETY_MODE])

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as plain JSON types."""
        plain = cast("dict[str, Any]", msgspec.to_builtins(self))
        return {"policy": plain.pop("policy"), "tools": list(self.tools), **plain}


class _Cause(NamedTuple):
    """A rule as the loop needs it: unpacked once, when the plan is made."""

    signal: str
    function: Any
    text: str
    place: str
    weight: float


class _ParameterPlan(NamedTuple):
    spec: ParameterSpec
    styles: tuple[_Cause, ...]  # lowest precedence first; only those whose value can matter
    guards: tuple[_Cause, ...]
    is_blended: bool
    is_number: bool


class _Plan(NamedTuple):
    """What has to be computed for one set of present signals."""

    parameters: tuple[_ParameterPlan, ...]
    touched: tuple[str, ...]


class Dispatcher:
    """Decides under one policy. Pure but for a cache of plans; safe to share between threads."""

    __slots__ = ("_base_style", "_defaults", "_plans", "_signals", "policy")

    # A plan per set of present signals; a policy of 64 signals has more sets than memory.
    MAX_PLANS = 1024

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._signals = [(name, spec.min_level, 1 << i) for i, (name, spec) in enumerate(policy.signals.items())]
        self._defaults = {name: _as_plain(value) for name, value in policy.defaults.items()}
        self._plans: dict[int, _Plan] = {}
        self._base_style = self._choose_style(dict.fromkeys(policy.signals, 0.0), self._defaults).style

    def decide(
        self,
        levels: Mapping[str, float],
        *,
        caller: Mapping[str, Any] | None = None,
        nudges: Mapping[str, float] | None = None,
    ) -> Decision:
        """Turn signal levels into one bounded, explained decision.

        Pure and order-free: equal inputs give an equal decision.

        Args:
            levels: effective level per signal name, each a ratio in [0, 1]; absent names are absent signals.
            caller: the caller's own value per parameter, in the policy's units.
            nudges: what feedback adds per parameter, already inside its table's ranges.

        Returns:
            A Decision whose every parameter that the policy set lies inside the policy's bounds.

        Raises:
            UnknownSignal: a name that the policy does not declare.

        Source: docs/explanation/modulation.md; invariants I1 and I2.
        """
        present: dict[str, float] = {}
        full: dict[str, float] = {}
        mask = seen = 0
        for name, min_level, bit in self._signals:
            level = levels.get(name)
            if level is None:
                full[name] = 0.0
                continue
            seen += 1
            if level >= min_level:
                present[name] = full[name] = level
                mask |= bit
            else:
                full[name] = 0.0
        if seen != len(levels):
            require_known(levels, self.policy.signals)
        plan = self._plans.get(mask) or self._make_plan(mask)
        parameters = self._defaults.copy()
        parameters[TOOLS] = list(parameters[TOOLS])
        limits: dict[str, Any] = {}
        trace: list[Step] = []
        for part in plan.parameters:
            if part.is_number:
                self._decide_number(part, full, parameters, limits, trace, nudges)
            else:
                self._decide_choice(part, full, parameters, limits, trace)
        if nudges:
            self._nudge_untouched(plan, nudges, caller or {}, parameters, trace)
        chosen = self._choose_style(full, parameters)
        if chosen.style != self._base_style:
            trace.append(
                Step("style", "choose", self._base_style, chosen.style, rule=chosen.text, place=str(chosen.place))
            )
        decision = Decision(self.policy.id, parameters, chosen.style, list(plan.touched), limits, present, trace)
        if caller:
            self._apply_caller(plan, decision, caller, nudges or {})
        return decision

    def limit(self, decision: Decision, parameter: str, value: Any) -> Any:
        """Return a caller's further value of a parameter, tightened where it is looser than the decision's limit."""
        limit = decision.limits.get(parameter)
        return value if limit is None else tightness.tighten(self.policy, parameter, value, limit)

    def _make_plan(self, mask: int) -> _Plan:
        policy = self.policy
        present = [name for name, _, bit in self._signals if mask & bit]  # highest precedence first
        plans: list[_ParameterPlan] = []
        touched: list[str] = []
        for name, spec in policy.parameters.items():
            rules = [policy.rules[signal, name] for signal in present if (signal, name) in policy.rules]
            guards = [rule for rule in rules if policy.signals[rule.signal].role == "guard"]
            styles = [rule for rule in rules if policy.signals[rule.signal].role == "style"]
            is_number = spec.kind in ("number", "integer")
            is_blended = policy.blend and is_number and len(styles) > 1
            if not is_blended:
                # A rule that does not read `current` hides every rule of lower precedence.
                last = next((i for i, rule in enumerate(styles) if not rule.uses_current), len(styles) - 1)
                styles = styles[: last + 1][::-1]
            if rules or policy.touch_all:
                touched.append(name)
                plans.append(_ParameterPlan(spec, self._causes(styles), self._causes(guards), is_blended, is_number))
        plan = _Plan(tuple(plans), tuple(touched))
        if len(self._plans) >= self.MAX_PLANS:
            self._plans.clear()
        self._plans[mask] = plan
        return plan

    def _causes(self, rules: Iterable[Rule]) -> tuple[_Cause, ...]:
        signals = self.policy.signals
        return tuple(_Cause(r.signal, r.function, r.text, str(r.place), signals[r.signal].weight) for r in rules)

    def _decide_choice(
        self,
        part: _ParameterPlan,
        full: dict[str, float],
        parameters: dict[str, Any],
        limits: dict[str, Any],
        trace: list[Step],
    ) -> None:
        """Decide an enum parameter or the tools."""
        spec, styles, guards, _, _ = part
        name = spec.name
        value = parameters[name]
        for signal, function, text, place, _ in styles:
            level = full[signal]
            after = _as_plain(function(level, value, full))
            if after != value:
                trace.append(Step(name, "style", value, after, signal, level, text, place))
                value = after
        base = value
        for signal, function, text, place, _ in guards:
            level = full[signal]
            cap = function(level, base, full)
            if cap is value:
                continue
            after = tightness.tighten(self.policy, name, value, cap)
            if after != value:
                trace.append(Step(name, "guard", value, after, signal, level, text, place))
                value = after
        parameters[name] = value
        if spec.tighter is not None:
            limits[name] = value

    def _decide_number(
        self,
        part: _ParameterPlan,
        full: dict[str, float],
        parameters: dict[str, Any],
        limits: dict[str, Any],
        trace: list[Step],
        nudges: Mapping[str, float] | None,
    ) -> None:
        """Decide a number: styles, guards, bounds, nudge."""
        spec, styles, guards, is_blended, _ = part
        name = spec.name
        value: float = parameters[name]
        if is_blended:
            value = self._blend(spec, styles, full, value, trace)
        else:
            for signal, function, text, place, _ in styles:
                level = full[signal]
                after: float = function(level, value, full)
                if after != value:
                    trace.append(Step(name, "style", value, after, signal, level, text, place))
                    value = after
        low, high, is_lower = spec.low, spec.high, spec.tighter == "lower"
        base = value
        cap: float | None = None
        for signal, function, text, place, _ in guards:
            level = full[signal]
            own: float = function(level, base, full)
            own = low if own < low else high if own > high else own
            if cap is None or (own < cap if is_lower else own > cap):
                cap = own
            if own < value if is_lower else own > value:
                trace.append(Step(name, "guard", value, own, signal, level, text, place))
                value = own
        if value < low or value > high:
            after = low if value < low else high
            trace.append(Step(name, "bounds", value, after, rule=f"[{low:g}, {high:g}]"))
            value = after
        if nudges and name in nudges:
            value = self._nudge(spec, value, nudges[name], low, high, cap, parameters[SAFETY_MODE], trace)
        parameters[name] = value
        if spec.tighter is not None:
            # Where only guards map a parameter, the caller is held to their cap and not to the default.
            limits[name] = value if styles or cap is None or self.policy.touch_all else cap

    def _blend(
        self, spec: ParameterSpec, styles: tuple[_Cause, ...], full: dict[str, float], value: Any, trace: list[Step]
    ) -> Any:
        weights = [cause.weight * full[cause.signal] for cause in styles]
        total = sum(weights)
        if total <= 0.0:  # only levels of exactly 0 are present
            weights, total = [cause.weight for cause in styles], sum(cause.weight for cause in styles)
        values = [cause.function(full[cause.signal], value, full) for cause in styles]
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / total
        # A mean lies between its parts; rounding must not carry it outside.
        after = tightness.settle(spec, min(max(mean, min(values)), max(values)))
        if after != value:
            names = ", ".join(f"{cause.signal} {full[cause.signal]:g}" for cause in styles)
            trace.append(Step(spec.name, "style", value, after, rule=f"blend of {names}"))
        return after

    def _nudge(
        self,
        spec: ParameterSpec,
        value: Any,
        delta: float,
        low: float,
        high: float,
        cap: Any,
        mode: str,
        trace: list[Step],
    ) -> Any:
        if mode == self.policy.parameters[SAFETY_MODE].values[0] and tightness.is_looser(spec, value + delta, value):
            return value  # in the strictest mode feedback may not loosen
        after = tightness.settle(spec, min(max(value + delta, low), high))
        if cap is not None and tightness.is_looser(spec, after, cap):
            after = cap
        if after != value:
            trace.append(Step(spec.name, "nudge", value, after, rule=f"feedback {delta:+g}"))
        return after

    def _nudge_untouched(
        self,
        plan: _Plan,
        nudges: Mapping[str, float],
        caller: Mapping[str, Any],
        parameters: dict[str, Any],
        trace: list[Step],
    ) -> None:
        for name in sorted(nudges):
            if name not in plan.touched and name in parameters and name not in caller:
                spec = self.policy.parameters[name]
                mode = parameters[SAFETY_MODE]
                # Reported, never written: the caller has no value for it to be added to.
                parameters[name] = self._nudge(
                    spec, parameters[name], nudges[name], spec.low, spec.high, None, mode, trace
                )

    def _apply_caller(
        self, plan: _Plan, decision: Decision, caller: Mapping[str, Any], nudges: Mapping[str, float]
    ) -> None:
        is_open = not self.policy.touch_all
        guarded_only = {part.spec.name for part in plan.parameters if is_open and not part.styles}
        for name, spec in self.policy.parameters.items():
            own = caller.get(name)
            if own is None or spec.kind == "tools":
                continue
            decided = decision.parameters[name]
            value = own
            is_free = name not in plan.touched or name in guarded_only
            if name in nudges and is_free:
                # The caller's value may lie outside the bounds already; feedback moves it no further out.
                low, high = min(spec.low, own), max(spec.high, own)
                value = self._nudge(spec, own, nudges[name], low, high, None, decision.safety_mode, decision.trace)
            if name in decision.limits:
                value = tightness.tighten(self.policy, name, value, decision.limits[name])
            if value != own or (value != decided and name in plan.touched):
                word = "kept" if value == own else "limited"
                decision.trace.append(Step(name, "caller", decided, value, rule=f"the caller's {own} is {word}"))
            decision.parameters[name] = value
            if value != own and name not in decision.touched:
                decision.touched.append(name)

    def _choose_style(self, levels: Mapping[str, float], parameters: Mapping[str, Any]) -> StyleRule:
        rules = self.policy.style_rules
        for rule in rules:
            if rule.function is None or rule.function(levels, parameters):
                return rule
        return rules[-1]


class Modulator:
    """Turns signals into decisions under one policy.

    Args:
        policy_path: a policy file; the packaged policy when None.
        policy: an already loaded policy, instead of a path.
        clock: injected time, for the decay of signals that carry a `ts`.

    Raises:
        PolicyError: the policy does not load.
    """

    def __init__(
        self, policy_path: str | Path | None = None, *, policy: Policy | None = None, clock: Clock | None = None
    ) -> None:
        self.policy = policy or load_policy(policy_path)
        self.dispatcher = Dispatcher(self.policy)
        self._clock = clock or SystemClock()

    def combine(
        self,
        signals: Iterable[Signal],
        *,
        caller: Mapping[str, Value] | None = None,
        nudges: Mapping[str, float] | None = None,
    ) -> Decision:
        """Combine signals into one decision; any permutation of them gives the same.

        A guard counts with its highest level, a style signal with its latest emission (of equally late ones, the
        highest). Signals with a `ts` decay, and are gone after their ttl; those without one are of this moment.

        Args:
            signals: emissions, in any order and number.
            caller: the caller's own parameter values, which may only be tighter.
            nudges: what feedback adds per parameter.

        Raises:
            UnknownSignal: a name that the policy does not declare.
        """
        specs = self.policy.signals
        levels: dict[str, float] = {}
        latest: dict[str, float] = {}
        for signal in signals:
            name = signal.name
            spec = specs.get(name)
            if spec is None:
                require_known((name,), specs)
                continue
            level = signal.level
            at = signal.ts
            if at is not None:
                ttl_ms = min(spec.ttl_ms if signal.ttl_ms is None else signal.ttl_ms, spec.max_ttl_ms)
                age_ms = max(0, self._clock.now_ms() - round(at * 1000))
                if age_ms >= ttl_ms:
                    continue
                level = decayed_level(level, age_ms, spec.half_life_ms)
            if name not in levels:
                levels[name] = level
            elif spec.role == "guard":
                levels[name] = max(level, levels[name])
                continue
            else:
                moment = float("inf") if at is None else at
                if (moment, level) > (latest[name], levels[name]):
                    levels[name] = level
                    latest[name] = moment
                continue
            latest[name] = float("inf") if at is None else at
        return self.dispatcher.decide(levels, caller=caller, nudges=nudges)

    def decide(self, levels: Mapping[str, float], **options: Any) -> Decision:
        """Decide from levels by name; see `Dispatcher.decide`."""
        checked = {name: check_level(name, level) for name, level in levels.items()}
        return self.dispatcher.decide(checked, **options)


def _as_plain(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value
