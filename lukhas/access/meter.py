"""The meter: reserves what a call may use before it is made, and settles what it did use.

It lives on one event loop and never waits, so that a reservation over all limits of a key and its tenant is one step:
either everything is reserved or nothing is, and no number of parallel calls gets more than one of them would.
"""

from __future__ import annotations

from typing import Final, NamedTuple, NoReturn, Protocol

from lukhas.access.account import Account, DayCount, Standing
from lukhas.access.limit import NO_LIMITS, Holder, HolderKind, LimitRules
from lukhas.access.limit_header import Headers, limit_headers
from lukhas.access.refusal import Refusal, refuse_budget, refuse_counts, refuse_minute
from lukhas.access.ring import ApiKey
from lukhas.access.usage import DAY_MS, UsageChange, day_of
from lukhas.access.window import Entry
from lukhas.clock import Clock
from lukhas.telemetry import Metrics

# More than any model can use; what an upstream claims must not overflow the database.
_MOST_TOKENS: Final = 10**12


def estimate_tokens(prompt_bytes: int) -> int:
    """Return about how many tokens a prompt of so many UTF-8 bytes has, rather too many than too few."""
    return -(-prompt_bytes // 3) + 16


def bound_tokens(prompt_bytes: int, texts: int = 1) -> int:
    """Return how many tokens a prompt of so many UTF-8 bytes in so many texts has at most.

    A token stands for one byte at least; around each message stand a few more. Media, hosted tools and what the
    upstream keeps from earlier calls are not in it.
    """
    return prompt_bytes + 8 * texts + 8


class LimitSource(Protocol):
    """Where the meter finds the limits in force: a `LimitStore`."""

    @property
    def rules(self) -> LimitRules:
        """The newest snapshot; another object where anything has changed."""
        ...


class UsageLog(Protocol):
    """Where the meter writes what counts for whole days."""

    def add(self, change: UsageChange) -> None:
        """Take in a difference; it becomes durable by itself."""
        ...


class _Charge(NamedTuple):
    account: Account
    request: Entry | None
    tokens: Entry | None
    minute_tokens: int
    day: DayCount | None
    day_tokens: int


class Reservation:
    """What was reserved for one call, until `settle` or `release` ends it; the first of them counts.

    Attributes:
        output_cap: how many tokens the call may produce, over all its choices; None where it may do as it asks.
        counts_tokens: whether a limit on tokens holds, so that the call's usage must be learnt.
    """

    __slots__ = ("_accounts", "_charges", "_meter", "counts_tokens", "output_cap")

    def __init__(
        self, meter: Meter, accounts: tuple[Account, ...], charges: tuple[_Charge, ...], output_cap: int | None
    ) -> None:
        self._meter = meter
        self._accounts = accounts
        self._charges = charges
        self.output_cap = output_cap
        self.counts_tokens = any(one.account.limits.counts_tokens for one in charges)

    def settle(self, actual_tokens: int | None) -> None:
        """End the reservation of a call that was sent upstream.

        Args:
            actual_tokens: prompt and answer, as the upstream counted them; None where it did not say, and what was
                reserved stays counted. More than was reserved counts in full.
        """
        charges, self._charges = self._charges, ()
        actual = None if actual_tokens is None else min(max(actual_tokens, 0), _MOST_TOKENS)
        self._meter.close(charges, actual, is_made=True)

    def release(self) -> None:
        """Give everything back, the request too: the call was not sent upstream."""
        charges, self._charges = self._charges, ()
        self._meter.close(charges, 0, is_made=False)

    def headers(self) -> Headers:
        """Return the rate-limit headers as of now, of the limit that will stop the caller first."""
        return self._meter.headers(self._accounts)


class Meter:
    """Counts what keys and tenants use, for one process, on one event loop."""

    def __init__(
        self,
        limits: LimitSource,
        clock: Clock,
        *,
        output_tokens: int = 4096,
        usage: UsageLog | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Take the limits in force; later ones are noticed by themselves.

        Args:
            limits: a LimitStore, which somebody refreshes.
            clock: its monotonic reading counts minutes, its wall clock days.
            output_tokens: what one choice of a call may produce where the caller does not say.
            usage: where daily usage is written.
            metrics: where refusals are counted.
        """
        self._limits = limits
        self._clock = clock
        self._output_tokens = output_tokens
        self._usage = usage
        self._metrics = metrics
        self._keys: dict[str, Account] = {}
        self._tenants: dict[str, Account] = {}
        self._days: dict[str, DayCount] = {}
        self._day = day_of(clock.now_ms())
        self._behind_since_ms: int | None = None
        self._rules = self._follow()
        # Where the clock was set back over midnight while nothing ran, the later day has begun already.
        self._day += any(day == self._day + 1 for _, day in self._rules.usage)

    def is_limited(self, key: ApiKey) -> bool:
        """Say whether any limit holds for a key's calls."""
        if self._limits.rules is not self._rules:
            self._follow()
        return key.key_id in self._keys or key.tenant in self._tenants

    def reserve(
        self,
        key: ApiKey,
        estimate_tokens: int,
        *,
        wants_output: int | None,
        most_tokens: int | None = None,
        choices: int = 1,
    ) -> Reservation | None:
        """Reserve one call against every limit of the key and of its tenant, or nothing at all.

        Args:
            key: whose call it is.
            estimate_tokens: the prompt, as `estimate_tokens` guesses it; counts for the minute.
            wants_output: tokens that the call may produce, over all choices; None where the caller does not say, 0
                where it produces none.
            most_tokens: what the prompt can have at most (`bound_tokens`); counts for the daily budget. By default
                three times the estimate.
            choices: how many answers are asked for.

        Returns:
            What was reserved, to be settled or released; None where no limit holds for the call.

        Raises:
            RateLimited: a limit that waiting helps for: requests or tokens of the minute, calls at once, a budget
                that calls in flight hold.
            BudgetExhausted: a limit of the day. Both carry `retry_after_s` and `headers`.
        """
        if self._limits.rules is not self._rules:
            self._follow()
        of_key, of_tenant = self._keys.get(key.key_id), self._tenants.get(key.tenant)
        if of_key is None:
            if of_tenant is None:
                return None
            accounts: tuple[Account, ...] = (of_tenant,)
        else:
            accounts = (of_key,) if of_tenant is None else (of_key, of_tenant)
        most = 3 * estimate_tokens if most_tokens is None else most_tokens
        return self._reserve(accounts, estimate_tokens, most, wants_output, max(1, choices))

    def standings(self, holder: Holder) -> list[Standing]:
        """Return how far each of a holder's limits is used; nothing where none is set."""
        self._follow()
        account = (self._keys if holder.kind == "key" else self._tenants).get(holder.id)
        if account is None:
            return []
        self._open_day((account,))
        return account.standings(self._clock.monotonic_ms(), self._until_tomorrow_ms())

    def headers(self, accounts: tuple[Account, ...]) -> Headers:
        """Return the rate-limit headers for a call of these accounts."""
        self._open_day(accounts)
        return limit_headers(accounts, self._clock.monotonic_ms(), self._until_tomorrow_ms())

    def close(self, charges: tuple[_Charge, ...], actual: int | None, *, is_made: bool) -> None:
        """End a reservation; `Reservation` alone calls this.

        Args:
            charges: what was counted for it.
            actual: tokens that were used; None leaves what was reserved.
            is_made: whether the call counts as a request.
        """
        now_ms = self._clock.monotonic_ms()
        for charge in charges:
            account = charge.account
            account.calls -= 1
            if charge.request is not None:
                account.requests.settle(charge.request, 1, 1 if is_made else 0, now_ms)
            if charge.tokens is not None:
                reserved = charge.minute_tokens
                account.tokens.settle(charge.tokens, reserved, reserved if actual is None else actual, now_ms)
            day = charge.day
            if day is not None:
                change = 0 if actual is None else actual - charge.day_tokens
                day.held -= charge.day_tokens
                self._count(account, day, change, 0 if is_made else -1)

    def _reserve(
        self, accounts: tuple[Account, ...], estimate: int, most: int, wants: int | None, choices: int
    ) -> Reservation:
        now_ms = self._clock.monotonic_ms()
        self._open_day(accounts)
        wanted = self._output_tokens * choices if wants is None else max(0, wants)
        least = min(wanted, choices)
        refusals: list[Refusal] = []
        output = wanted
        for account in accounts:
            account.expire(now_ms)
            budget = account.limits.tokens_per_day
            if budget is not None and (day := account.today) is not None:
                output = min(output, budget - day.tokens - most)
                if budget - day.tokens - most < least:
                    tomorrow_ms = self._until_tomorrow_ms()
                    refusals.append(refuse_budget(account, budget, day, most + least, tomorrow_ms))
        if least <= output < wanted:
            output -= output % choices
        is_budgeted = any(account.limits.tokens_per_day is not None for account in accounts)
        minute_output = output
        for account in accounts:
            refusals += refuse_counts(account, now_ms, self._until_tomorrow_ms)
            limit = account.limits.tokens_per_minute
            if limit is not None:
                # A caller who names no number may use up what the minute has left, and cannot be held to less.
                need = estimate + (output if wants is not None else least)
                room = limit - account.tokens.used
                if room < need:
                    refusals.append(refuse_minute(account, limit, need, now_ms))
                minute_output = min(minute_output, room - estimate)
        if refusals:
            self._raise(accounts, max(refusals, key=lambda one: one.wait_ms))
        charges: list[_Charge] = []
        for account in accounts:
            limits = account.limits
            account.calls += 1
            request = account.requests.hold(now_ms, 1) if limits.requests_per_minute is not None else None
            minute = estimate + minute_output
            tokens = account.tokens.hold(now_ms, minute) if limits.tokens_per_minute is not None else None
            day, day_tokens = account.today, 0
            if day is not None:
                day_tokens = most + output
                day.held += day_tokens
                self._count(account, day, day_tokens, 1)
            charges.append(_Charge(account, request, tokens, minute, day, day_tokens))
        cap = output if is_budgeted and wanted and (wants is None or output < wanted) else None
        return Reservation(self, accounts, tuple(charges), cap)

    def _raise(self, accounts: tuple[Account, ...], why: Refusal) -> NoReturn:
        if self._metrics is not None:
            self._metrics.limited.add(why.name, why.account.holder.kind)
        refusal = why.make_error()
        refusal.headers = self.headers(accounts)
        raise refusal

    def _count(self, account: Account, day: DayCount, tokens: int, requests: int) -> None:
        day.tokens += tokens
        day.requests += requests
        if self._usage is not None and (tokens or requests):
            self._usage.add(UsageChange(account.name, day.day, tokens, requests))

    def _follow(self) -> LimitRules:
        """Take the limits in force; what was counted stays, for those who still have one."""
        self._rules = self._limits.rules
        self._keys = self._adjust("key", self._keys)
        self._tenants = self._adjust("tenant", self._tenants)
        return self._rules

    def _adjust(self, kind: HolderKind, before: dict[str, Account]) -> dict[str, Account]:
        after: dict[str, Account] = {}
        for name, limits in (self._rules.keys if kind == "key" else self._rules.tenants).items():
            if limits != NO_LIMITS:
                account = after[name] = before.get(name) or Account(Holder(kind, name), limits)
                if account.limits is not limits:
                    account.adopt(limits)
        return after

    def _open_day(self, accounts: tuple[Account, ...]) -> None:
        """See to it that every account with a daily limit counts today."""
        day = self._find_day()
        for account in accounts:
            if account.limits.has_daily and (account.today is None or account.today.day != day):
                known = self._days.get(account.name)
                if known is None or known.day != day:
                    known = DayCount(day, *self._rules.usage.get((account.name, day), ()))
                    self._days[account.name] = known
                account.today = known

    def _find_day(self) -> int:
        """Return the day that counts: the wall clock's, which may not make a day begin again.

        A clock that was set back leaves the day as it is until it has caught up, but for no longer than 24 hours: a
        clock that was far ahead by mistake must not lock anybody out for good.
        """
        wall = day_of(self._clock.now_ms())
        if wall < self._day:
            now_ms = self._clock.monotonic_ms()
            if self._behind_since_ms is None:
                self._behind_since_ms = now_ms
            if now_ms - self._behind_since_ms < DAY_MS:
                return self._day
        self._day, self._behind_since_ms = wall, None
        return wall

    def _until_tomorrow_ms(self) -> int:
        day, now_ms = self._find_day(), self._clock.now_ms()
        if self._behind_since_ms is not None:
            left_ms = self._behind_since_ms + DAY_MS - self._clock.monotonic_ms()
            if day_of(now_ms + left_ms) < day:
                return left_ms
        return (day + 1) * DAY_MS - now_ms
