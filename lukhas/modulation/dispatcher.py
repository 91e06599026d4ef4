"""Signal levels in, one bounded and explained decision out.

The order of the steps is the contract (docs/explanation/modulation.md): styles decide, guards tighten, bounds limit,
feedback nudges, the caller may only be tighter, and caps and bounds are applied once more last. Nothing here depends
on the order in which signals came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from lukhas.clock import Clock, SystemClock
from lukhas.modulation import tightness
from lukhas.modulation.decision import Decision, Step
from lukhas.modulation.plan import Cause, ParameterPlan, Plan, make_plan
from lukhas.modulation.policy import SAFETY_MODE, TOOLS, ParameterSpec, Policy, StyleRule, Value
from lukhas.modulation.policy_reader import load_policy
from lukhas.modulation.signals import Signal, check_level, require_known
from lukhas.modulation.state import decayed_level


class Dispatcher:
    """Decides under one policy. Pure but for caches; safe to share between threads."""

    __slots__ = ("_base_style", "_defaults", "_plans", "_signals", "_tightened", "policy")

    # A plan per set of present signals; a policy of 64 signals has more sets than memory.
    MAX_PLANS = 1024

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._signals = [(name, spec.min_level, 1 << i) for i, (name, spec) in enumerate(policy.signals.items())]
        self._defaults: dict[str, Any] = dict(policy.defaults)
        self._plans: dict[int, Plan] = {}
        self._tightened: dict[tuple[str, Any, Any], Any] = {}
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
            caller: the caller's own value per parameter, in the policy's units; None counts as absent.
            nudges: what feedback adds per parameter; held to the policy's feedback table, and ignored outside it.

        Returns:
            A Decision whose every parameter that the policy set lies inside the policy's bounds.

        Raises:
            UnknownSignal: a name that the policy does not declare.
            InvalidRequest: a caller's value of the wrong type.

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
        limits: dict[str, Any] = {}
        trace: list[Step] = []
        touched = list(plan.touched)
        for part in plan.choices:
            self._decide_choice(part, full, parameters, limits, trace)
        if caller and (own := caller.get(SAFETY_MODE)) is not None:
            # Before the numbers and the style, which hang on the mode that is in force.
            own = tightness.check_value(self.policy.parameters[SAFETY_MODE], own)
            self._limit_caller(SAFETY_MODE, own, own, parameters[SAFETY_MODE], parameters, touched, trace)
            if SAFETY_MODE in limits:
                limits[SAFETY_MODE] = parameters[SAFETY_MODE]
        moves = self._bounded_nudges(nudges, parameters[SAFETY_MODE]) if nudges else {}
        for part in plan.numbers:
            self._decide_number(part, full, parameters, limits, trace, moves)
        if caller:
            self._apply_caller(plan, caller, moves, parameters, limits, touched, trace)
        for name in sorted(moves):
            if name not in plan.touched and (caller is None or caller.get(name) is None):
                # Reported, never written: the caller has no value for it to be added to.
                spec = self.policy.parameters[name]
                value = parameters[name]
                parameters[name] = self._nudge(spec, value, moves[name], spec.low, spec.high, None, trace)
        chosen = self._choose_style(full, parameters)
        if chosen.style != self._base_style:
            trace.append(
                Step("style", "choose", self._base_style, chosen.style, rule=chosen.text, place=str(chosen.place))
            )
        parameters[TOOLS] = list(parameters[TOOLS])
        return Decision(self.policy.id, parameters, chosen.style, touched, limits, present, trace)

    def limit(self, decision: Decision, parameter: str, value: Any) -> Any:
        """Return a caller's further value of a parameter, tightened where it is looser than the decision's limit.

        The safety mode and the tools are limited by every decision, the rest where a signal touches them.

        Raises:
            InvalidRequest: a value of the wrong type.
        """
        limit = decision.limits.get(parameter)
        if limit is None and parameter in (SAFETY_MODE, TOOLS):
            limit = decision.parameters[parameter]
        if limit is None:
            return value
        own = tightness.check_value(self.policy.parameters[parameter], value)
        held = tightness.tighten(self.policy, parameter, own, limit)
        return list(cast("tuple[str, ...]", held)) if parameter == TOOLS else held

    def _make_plan(self, mask: int) -> Plan:
        plan = make_plan(self.policy, [name for name, _, bit in self._signals if mask & bit])
        if len(self._plans) >= self.MAX_PLANS:
            self._plans.clear()
        self._plans[mask] = plan
        return plan

    def _decide_choice(
        self,
        part: ParameterPlan,
        full: dict[str, float],
        parameters: dict[str, Any],
        limits: dict[str, Any],
        trace: list[Step],
    ) -> None:
        """Decide an enum parameter or the tools."""
        spec, styles, guards, _, is_guarded_only, name, _, _, _ = part
        value: str | tuple[str, ...] = parameters[name]
        for signal, function, text, place, _ in styles:
            level = full[signal]
            after = function(level, value, full)
            if after != value:
                trace.append(_choice_step(name, "style", value, after, signal, level, text, place))
                value = after
        base = value
        cap = None
        for signal, function, text, place, _ in guards:
            level = full[signal]
            own = function(level, base, full)
            cap = own if cap is None else self._tighten(name, cap, own)
            if own != value and (after := self._tighten(name, value, own)) != value:
                trace.append(_choice_step(name, "guard", value, after, signal, level, text, place))
                value = after
        parameters[name] = value
        if spec.tighter is not None:
            # The mode and the tools are in force untouched too, so their limit is never looser than their value.
            is_capped = is_guarded_only and cap is not None and name != SAFETY_MODE and name != TOOLS
            limit: Any = cap if is_capped else value
            limits[name] = list(cast("tuple[str, ...]", limit)) if isinstance(limit, tuple) else limit

    def _tighten(self, name: str, value: Any, cap: Any) -> Any:
        """Tighten an enum or the tools; there are few pairs, and meeting two lists of tools is slow."""
        pair = (name, value, cap)
        found = self._tightened.get(pair)
        if found is None:
            if len(self._tightened) >= self.MAX_PLANS:
                self._tightened.clear()
            found = self._tightened[pair] = tightness.tighten(self.policy, name, value, cap)
        return found

    def _decide_number(
        self,
        part: ParameterPlan,
        full: dict[str, float],
        parameters: dict[str, Any],
        limits: dict[str, Any],
        trace: list[Step],
        moves: Mapping[str, float],
    ) -> None:
        """Decide a number: styles, bounds, guards, nudge."""
        spec, styles, guards, is_blended, is_guarded_only, name, low, high, is_lower = part
        value: float = parameters[name]
        if is_blended:
            value = self._within(spec, self._blend(spec, styles, full, value, trace), trace)
        else:
            for signal, function, text, place, _ in styles:
                level = full[signal]
                after: float = function(level, value, full)
                if after != value:
                    trace.append(Step(name, "style", value, after, signal, level, text, place))
                    value = after
                    if value < low or value > high:
                        # At once, so that what the next expression reads as `current` lies inside the bounds.
                        value = self._within(spec, value, trace)
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
        if name in moves:
            value = self._nudge(spec, value, moves[name], low, high, cap, trace)
        parameters[name] = value
        if spec.tighter is not None:
            # Where only guards map a parameter, the caller is held to their cap and not to the default.
            limits[name] = cap if is_guarded_only and cap is not None else value

    def _within(self, spec: ParameterSpec, value: float, trace: list[Step]) -> float:
        after = spec.low if value < spec.low else spec.high if value > spec.high else value
        if after != value:
            trace.append(Step(spec.name, "bounds", value, after, rule=f"[{spec.low:g}, {spec.high:g}]"))
        return after

    def _blend(
        self, spec: ParameterSpec, styles: tuple[Cause, ...], full: dict[str, float], value: Any, trace: list[Step]
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

    def _bounded_nudges(self, nudges: Mapping[str, float], mode: str) -> dict[str, float]:
        """Hold nudges to the feedback table (invariant I2); in the strictest mode none may loosen."""
        parameters = self.policy.parameters
        is_strictest = mode == parameters[SAFETY_MODE].values[0]
        moves: dict[str, float] = {}
        for name, delta in nudges.items():
            knob = self.policy.knobs.get(name)
            if knob is None or not (delta < 0.0 or delta > 0.0):
                continue
            delta = min(max(delta, knob.low), knob.high)
            if delta and not (is_strictest and tightness.loosens(parameters[name], delta)):
                moves[name] = delta
        return moves

    def _nudge(
        self, spec: ParameterSpec, value: Any, delta: float, low: float, high: float, cap: Any, trace: list[Step]
    ) -> Any:
        after = min(max(tightness.settle(spec, value + delta), low), high)
        # Rounding may not turn the direction, or dropping a nudge in the strictest mode could loosen.
        if (after < value) if delta > 0 else (after > value):
            after = value
        if cap is not None and tightness.is_looser(spec, after, cap):
            after = cap
        if after != value:
            trace.append(Step(spec.name, "nudge", value, after, rule=f"feedback {delta:+g}"))
        return after

    def _apply_caller(
        self,
        plan: Plan,
        caller: Mapping[str, Any],
        moves: Mapping[str, float],
        parameters: dict[str, Any],
        limits: Mapping[str, Any],
        touched: list[str],
        trace: list[Step],
    ) -> None:
        for name, spec in self.policy.parameters.items():
            own = caller.get(name)
            if own is None or name in (SAFETY_MODE, TOOLS):
                continue
            own = value = tightness.check_value(spec, own)
            if name in moves and name not in plan.styled:
                # The caller's value may lie outside the bounds already; feedback moves it no further out.
                low, high = min(spec.low, own), max(spec.high, own)
                value = self._nudge(spec, own, moves[name], low, high, None, trace)
            self._limit_caller(name, own, value, limits.get(name), parameters, touched, trace)

    def _limit_caller(
        self,
        name: str,
        own: Any,
        value: Any,
        limit: Any,
        parameters: dict[str, Any],
        touched: list[str],
        trace: list[Step],
    ) -> None:
        """Take the caller's own value over, nudged already, held to a limit."""
        held = value if limit is None else tightness.tighten(self.policy, name, value, limit)
        decided = parameters[name]
        if held != value:
            trace.append(Step(name, "caller", value, held, rule=f"the caller's {own} is limited"))
        elif held == own and held != decided and name in touched:
            trace.append(Step(name, "caller", decided, held, rule=f"the caller's {own} is kept"))
        parameters[name] = held
        if held != own and name not in touched:
            touched.append(name)

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
            InvalidRequest: a caller's value of the wrong type.
        """
        specs = self.policy.signals
        found: dict[str, tuple[float, float]] = {}
        now_ms = None
        for signal in signals:
            name, level, at = signal.name, signal.level, signal.ts
            spec = specs.get(name)
            if spec is None:
                require_known((name,), specs)
                continue
            moment = math.inf
            if at is not None:
                # One reading for all, or the order would say which of them is a millisecond older.
                now_ms = self._clock.now_ms() if now_ms is None else now_ms
                moment = at
                age_ms = max(0, now_ms - round(at * 1000))
                ttl_ms = min(spec.ttl_ms if signal.ttl_ms is None else signal.ttl_ms, spec.max_ttl_ms)
                if age_ms >= ttl_ms:
                    continue
                level = decayed_level(level, age_ms, spec.half_life_ms)
            known = found.get(name)
            if known is None or (level > known[1] if spec.role == "guard" else (moment, level) > known):
                found[name] = (moment, level)
        levels = {name: level for name, (_, level) in found.items()}
        return self.dispatcher.decide(levels, caller=caller, nudges=nudges)

    def decide(self, levels: Mapping[str, float], **options: Any) -> Decision:
        """Decide from levels by name; see `Dispatcher.decide`."""
        checked = {name: check_level(name, level) for name, level in levels.items()}
        return self.dispatcher.decide(checked, **options)


def _choice_step(
    name: str, step: str, before: Any, after: Any, signal: str, level: float, text: str, place: str
) -> Step:
    if isinstance(before, tuple):
        before, after = list(cast("tuple[str, ...]", before)), list(after)
    return Step(name, step, before, after, signal, level, text, place)
