"""Why a limit refuses a call, and what its caller is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from lukhas.access.account import Account, DayCount
from lukhas.access.window import SPAN_MS
from lukhas.errors import BudgetExhausted, LimitReached, RateLimited

# Calls in flight end when they end: until then a second is a good moment to ask again.
_IN_FLIGHT_MS: Final = 1_000
_WORDS: Final = {
    "requests_per_minute": "requests per minute",
    "tokens_per_minute": "tokens per minute",
    "concurrent_calls": "calls at once",
    "requests_per_day": "requests per day",
    "tokens_per_day": "tokens per day",
}


class Refusal(NamedTuple):
    """One limit that does not hold a call.

    Attributes:
        account: whose limit it is.
        name: a field of `Limits`.
        limit: its value.
        wait_ms: when the same call can succeed, as far as this limit goes.
        is_budget: only the next day helps.
        more: what else there is to say, as a sentence.
    """

    account: Account
    name: str
    limit: int
    wait_ms: int
    is_budget: bool = False
    more: str = ""

    def make_error(self) -> LimitReached:
        """Return the error that says so."""
        wait_s = max(self.wait_ms, 1) / 1000
        kind: type[LimitReached] = BudgetExhausted if self.is_budget else RateLimited
        whose = f"The {self.account.holder.kind}'s limit of {self.limit:,} {_WORDS[self.name]} is reached."
        return kind(f"{whose} {self.more}".rstrip(), hint=f"Try again in {_say(wait_s)}.", retry_after_s=wait_s)


def refuse_counts(account: Account, now_ms: int, until_tomorrow_ms: Callable[[], int]) -> list[Refusal]:
    """Return which limits on the number of calls do not hold one more."""
    limits, today = account.limits, account.today
    found: list[Refusal] = []
    limit = limits.requests_per_minute
    if limit is not None and account.requests.used >= limit:
        found.append(Refusal(account, "requests_per_minute", limit, account.requests.wait_ms(now_ms, limit - 1)))
    limit = limits.concurrent_calls
    if limit is not None and account.calls >= limit:
        found.append(Refusal(account, "concurrent_calls", limit, _IN_FLIGHT_MS))
    limit = limits.requests_per_day
    if limit is not None and today is not None and today.requests >= limit:
        found.append(Refusal(account, "requests_per_day", limit, until_tomorrow_ms(), is_budget=True))
    return found


def refuse_minute(account: Account, limit: int, need: int, now_ms: int) -> Refusal:
    """Return why the minute does not hold so many more tokens."""
    window = account.tokens
    if need > limit:
        more = f"This call can need {need:,} of them, so no wait helps: ask for fewer."
        return Refusal(account, "tokens_per_minute", limit, SPAN_MS, more=more)
    wait_ms = window.wait_ms(now_ms, limit - need)
    if window.used - window.held <= limit - need:
        wait_ms = min(wait_ms, _IN_FLIGHT_MS)
    return Refusal(account, "tokens_per_minute", limit, wait_ms)


def refuse_budget(account: Account, budget: int, day: DayCount, need: int, until_tomorrow_ms: int) -> Refusal:
    """Return why the day's budget does not hold so many more tokens."""
    left = budget - (day.tokens - day.held)
    if left >= need:
        more = "What is left of it is reserved by calls in flight."
        return Refusal(account, "tokens_per_day", budget, _IN_FLIGHT_MS, more=more)
    more = f"This call can need {need:,} of them, and {max(0, left):,} are left."
    return Refusal(account, "tokens_per_day", budget, until_tomorrow_ms, is_budget=True, more=more)


def _say(seconds: float) -> str:
    whole = -(-seconds // 1)
    if whole < 120:
        return f"{whole:.0f} s"
    return f"{seconds / 60:.0f} min" if whole < 7200 else f"{seconds / 3600:.1f} h"
