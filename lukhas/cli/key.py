"""`lukhas key`: make, list, limit and revoke API keys, whether or not the gateway runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lukhas.cli import limit
from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.cli.store import open_stores
from lukhas.clock import format_utc
from lukhas.errors import InvalidRequest
from lukhas.settings import load_settings

if TYPE_CHECKING:
    from lukhas.access.ring import ApiKey

app = typer.Typer(help="Make, list, limit and revoke API keys.", no_args_is_help=True)
app.command("limit")(limit.limit_key)
app.command("limits")(limit.list_limits)

_SPAN: Final = re.compile(r"([0-9]{1,6})([hdwy])\Z", re.ASCII)
_SPAN_MS: Final = {"h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000, "y": 365 * 86_400_000}


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="What the key is for, to tell it from others.")] = "unnamed",
    tenant: Annotated[str, typer.Option(help="Whose calls it makes.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", "--scopes", help="What it may do beside calling the model; repeatable, or a,b."),
    ] = None,
    expires: Annotated[
        str, typer.Option(help="30d, 12h, 2026-12-31 (refused from that day on, UTC) or never.")
    ] = "never",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key, and print its secret this once. A running gateway accepts it within a second."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        scopes = [part.strip() for given in scope or [] for part in given.split(",") if part.strip()]
        with open_stores(settings) as stores:
            now_ms = stores.clock.now_ms()
            expires_ms = read_expiry(expires, now_ms)
            recorded: list[str] = []

            def record(key: ApiKey) -> Any:
                audit_id, also = stores.record("key", key.tenant, {"event": "created", **describe(key, now_ms)})
                recorded.append(audit_id)
                return also

            key, secret = stores.keys.create(name, tenant, scopes, expires_ms, also=record)
        shown = {**describe(key, now_ms), "audit_id": recorded[0]}
        if as_json:
            print_json({**shown, "secret": secret})
            return
        for title in ("key", "name", "tenant", "scopes", "expires"):
            print_line(f"{title:8} {show(shown[title])}")
        print_line(f"{'record':8} {recorded[0]}")
        print_line(f"{'secret':8} {secret}")
        print_line("The secret is shown this once and stored nowhere.")


@app.command("list")
def list_keys(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List every key without its secret, revoked and expired ones too."""
    with failing_clearly(as_json):
        with open_stores(load_settings(config_path=config).settings) as stores:
            keys = [describe(key, stores.clock.now_ms()) for key in stores.keys.list()]
        if as_json:
            print_json({"keys": keys})
        elif not keys:
            print_line("There are no keys yet. The first start of the gateway makes one; or: lukhas key create")
        else:
            columns = ("key", "name", "tenant", "scopes", "expires", "state")
            # The minute is enough here; JSON has the moment.
            shown = [{**one, "expires": one["expires"][:16].replace("T", " ")} for one in keys]
            print_table(columns, [[one[column] for column in columns] for one in shown])


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="key_..., as `lukhas key list` shows it.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key. A running gateway refuses it within a second."""
    with failing_clearly(as_json), open_stores(load_settings(config_path=config).settings) as stores:
        before = next((key for key in stores.keys.list() if key.key_id == key_id), None)
        tenant = "" if before is None else before.tenant
        audit_id, also = stores.record("key", tenant, {"event": "revoked", "key": key_id})
        key = stores.keys.revoke(key_id, also=also)
        changed = before is not None and before.revoked_ms is None
        shown = {**describe(key, stores.clock.now_ms()), "changed": changed, "audit_id": audit_id if changed else None}
        if as_json:
            print_json(shown)
        elif changed:
            print_line(f"Revoked {key_id} ({show(key.name)}), on record as {audit_id}.")
        else:
            print_line(f"{key_id} ({show(key.name)}) was revoked before, on {shown['revoked']}.")


def read_expiry(text: str, now_ms: int) -> int | None:
    """Return when a key expires, in ms since the epoch; None for never.

    Raises:
        InvalidRequest: neither a span, nor a date, nor `never`.
    """
    word = text.strip().lower()
    if word == "never":
        return None
    span = _SPAN.match(word)
    if span is not None:
        return now_ms + int(span[1]) * _SPAN_MS[span[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequest(
            f"'{text[:40]}' is not an expiry.", hint="Write 30d, 12h, 2026-12-31 or never.", param="--expires"
        ) from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def describe(key: ApiKey, now_ms: int) -> dict[str, Any]:
    """Return a key as plain JSON types, without its secret, which nobody has."""
    state = "revoked" if key.revoked_ms is not None else "live" if key.is_live(now_ms) else "expired"
    return {
        "key": key.key_id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "created": format_utc(key.created_ms),
        "expires": "never" if key.expires_ms is None else _format(key.expires_ms),
        "revoked": None if key.revoked_ms is None else format_utc(key.revoked_ms),
        "state": state,
    }


def _format(ms: int) -> str:
    try:
        return format_utc(ms)
    except (ValueError, OverflowError):
        return f"{ms} ms"  # past what the calendar of the machine knows
