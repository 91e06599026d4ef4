"""`lukhas key limit`, `lukhas key limits` and `lukhas tenant limit`: what keys and tenants may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.cli.store import Stores, open_stores
from lukhas.errors import InvalidRequest, NotFound
from lukhas.settings import load_settings

if TYPE_CHECKING:
    from lukhas.access.limit import Holder, LimitRules, Limits, LimitStore

RequestsPerMinute: TypeAlias = Annotated[int | None, typer.Option(help="Requests within any 60 seconds.")]
TokensPerMinute: TypeAlias = Annotated[int | None, typer.Option(help="Tokens within any 60 seconds.")]
Concurrent: TypeAlias = Annotated[int | None, typer.Option("--concurrent", help="Calls at once.")]
RequestsPerDay: TypeAlias = Annotated[int | None, typer.Option(help="Requests from midnight to midnight, UTC.")]
TokensPerDay: TypeAlias = Annotated[int | None, typer.Option(help="The daily budget in tokens, UTC.")]
Clear: TypeAlias = Annotated[bool, typer.Option("--clear", help="Take all limits away first.")]
Why: TypeAlias = Annotated[str | None, typer.Option(help="The reason for the change; on record.")]

_TITLES: Final = {
    "requests_per_minute": "requests/min",
    "tokens_per_minute": "tokens/min",
    "concurrent_calls": "at once",
    "requests_per_day": "requests/day",
    "tokens_per_day": "tokens/day",
}


def limit_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="key_..., as `lukhas key list` shows it.")],
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent: Concurrent = None,
    requests_per_day: RequestsPerDay = None,
    tokens_per_day: TokensPerDay = None,
    clear: Clear = False,
    why: Why = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set limits of a key, or show them. A running gateway follows within a second."""
    given = _name_given(requests_per_minute, tokens_per_minute, concurrent, requests_per_day, tokens_per_day)
    limit("key", key_id, given, is_clear=clear, why=why, config=config, as_json=as_json)


def limit_tenant(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name; all its keys share the limits.")],
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent: Concurrent = None,
    requests_per_day: RequestsPerDay = None,
    tokens_per_day: TokensPerDay = None,
    clear: Clear = False,
    why: Why = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set limits of a tenant, or show them. A running gateway follows within a second."""
    given = _name_given(requests_per_minute, tokens_per_minute, concurrent, requests_per_day, tokens_per_day)
    limit("tenant", tenant, given, is_clear=clear, why=why, config=config, as_json=as_json)


def list_limits(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List every key and tenant that has limits, with what is used of today's."""
    with failing_clearly(as_json):
        with open_stores(load_settings(config_path=config).settings) as stores:
            rules = _open(stores).rules
            names = {key.key_id: key.name for key in stores.keys.list()}
            found = [_describe(rules, holder, stores) for holder in rules.holders()]
        if as_json:
            print_json({"limits": found})
        elif not found:
            print_line("No key and no tenant has a limit. To set one: lukhas key limit KEY_ID --tokens-per-day 1000000")
        else:
            columns = ("holder", "name", *_TITLES.values(), "used today")
            print_table(columns, [_row(one, names) for one in found])


def limit(
    kind: str, name: str, given: dict[str, int], *, is_clear: bool, why: str | None, config: Any, as_json: bool
) -> None:
    """Change or show the limits of one holder."""
    from lukhas.access.limit import NO_LIMITS, make_holder, parse_limits

    with failing_clearly(as_json):
        holder = make_holder(kind, name)
        parse_limits(given)
        with open_stores(load_settings(config_path=config).settings) as stores:
            store = _open(stores)
            owner = _find_owner(stores, holder)
            before = store.rules.find(holder)
            kept = NO_LIMITS if is_clear else before
            after = parse_limits(kept.to_dict() | given)
            audit_id = _change(stores, store, holder, before, after, why, owner) if given or is_clear else None
            shown = _describe(store.rules, holder, stores)
    if as_json:
        print_json(shown | {"changed": audit_id is not None, "audit_id": audit_id})
        return
    for limit_name, title in _TITLES.items():
        value = shown["limits"][limit_name]
        print_line(f"{title:13} {'no limit' if value is None else f'{value:,}'}")
    if after.has_daily:
        print_line(f"{'used today':13} {_say_usage(shown['today'])}")
    if audit_id is not None:
        print_line(f"{'record':13} {audit_id}")
    elif given or is_clear:
        print_line("Nothing changed: these limits held already.")


def _change(
    stores: Stores, store: LimitStore, holder: Holder, before: Limits, after: Limits, why: str | None, owner: str
) -> str | None:
    from lukhas.access.limit import describe_change
    from lukhas.modulation.revision import check_reason

    if why is None:
        raise InvalidRequest("A change of limits needs a reason.", hint='Add: --why "..."', param="--why")
    reason = check_reason(why)
    if after == before:
        return None
    audit_id, also = stores.record("limit", owner, describe_change(holder, before, after, reason))
    store.change(holder, after, expected=before, also=also)
    return audit_id


def _open(stores: Stores) -> LimitStore:
    from lukhas.access.limit import LimitStore

    return LimitStore(stores.database, stores.writer, stores.clock)


def _find_owner(stores: Stores, holder: Holder) -> str:
    if holder.kind == "tenant":
        return holder.id
    found = next((key.tenant for key in stores.keys.list() if key.key_id == holder.id), None)
    if found is None:
        raise NotFound("There is no such key.", hint="See: lukhas key list")
    return found


def _name_given(*numbers: int | None) -> dict[str, int]:
    return {name: number for name, number in zip(_TITLES, numbers, strict=True) if number is not None}


def _describe(rules: LimitRules, holder: Holder, stores: Stores) -> dict[str, Any]:
    from lukhas.access.usage import DayUsage, day_of

    limits = rules.find(holder)
    found = rules.usage.get((holder.text, day_of(stores.clock.now_ms())), DayUsage(0, 0))
    # Only a running gateway knows the minute; of the day the database knows what is settled or reserved.
    today = {"tokens": found.tokens, "requests": found.requests} if limits.has_daily else None
    return {holder.kind: holder.id, "limits": limits.to_dict(), "today": today}


def _row(one: dict[str, Any], names: dict[str, str]) -> list[str]:
    holder = one.get("key") or f"tenant {one['tenant']}"
    limits = (one["limits"][name] for name in _TITLES)
    used = "-" if one["today"] is None else _say_usage(one["today"])
    name = names.get(one.get("key", ""))
    return [holder, show(name), *("-" if value is None else f"{value:,}" for value in limits), used]


def _say_usage(today: dict[str, int]) -> str:
    return f"{today['tokens']:,} tokens, {today['requests']:,} requests"
