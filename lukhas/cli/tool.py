"""`lukhas tools`: what is registered and allowed, what was blocked, and which functions nobody has classed yet."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table
from lukhas.cli.policy_simulate import read_moment
from lukhas.cli.store import open_existing
from lukhas.clock import SystemClock, format_utc
from lukhas.errors import Conflict, StorageUnavailable
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.cli.tool_proposal import Proposal, Seen
    from lukhas.modulation.policy import Policy
    from lukhas.openai.tooling import Registry
    from lukhas.storage.engine import Database

app = typer.Typer(help="Look at tools: registered, allowed, blocked, seen.", no_args_is_help=True)

SinceOption = Annotated[
    str | None, typer.Option(help="Begin at: an age such as 7d or 12h, or 2026-12-31 or 2026-12-31T08:00:00Z.")
]
# Types and fields of tools that a provider runs: they stand among the names of functions; the policy classes them.
_HOSTED: Final = frozenset(
    (
        *("apply_patch", "code_interpreter", "computer", "computer_use", "computer_use_preview", "file_search", "mcp"),
        *("image_generation", "local_shell", "programmatic_tool_calling", "shell", "tool_search", "web_search"),
        *("web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
        *("web_search_options", "functions", "prompt"),
    )
)


@app.command("list")
def list_tools(
    policy: Annotated[Path | None, typer.Option(help="Policy file (default: LUKHAS_POLICY, else packaged).")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the registered tools: class, risk, and whether the policy allows them while no signal counts."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        registry, rules = _load(settings, policy)
        allowlist = _default_allowlist(rules)
        rows = [_describe(registry, name, allowlist, rules) for name in registry.names]
        if as_json:
            print_json({"policy": rules.id, "allowlist": list(allowlist), "tools": rows})
            return
        print_table(
            ("tool", "class", "risk", "allowed", "description"),
            [(row["name"], row["class"], row["risk"], row["allowed"], row["description"]) for row in rows],
        )
        print_line()
        print_line(f"The policy {rules.id} allows {', '.join(allowlist) or 'nothing'}; signals may narrow that.")


@app.command("incidents")
def list_incidents(
    since: SinceOption = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most that are listed.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List incidents of tools, newest first: calls that were blocked, results that were not to be had."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        since_ms = _read_since(since)
        with _open(settings) as database:
            rows = _read_incidents(database, since_ms, tenant, limit)
        if as_json:
            print_json({"incidents": rows})
        elif not rows:
            print_line("There are no such incidents.")
        else:
            columns = (
                "incident",
                "time",
                "tenant",
                "tool",
                "point",
                "category",
                "rule",
                "severity",
                "action",
                "record",
            )
            print_table(columns, [[row[name] for name in ("incident_id", *columns[1:-1], "audit_id")] for row in rows])


@app.command("learn")
def learn(
    write: Annotated[Path | None, typer.Option(help="Write the proposal to this new file.")] = None,
    since: SinceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose registry entries for functions that were seen and have no class. Allows nothing by itself."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        since_ms = _read_since(since)
        registry, rules = _load(settings, None)
        with _open(settings) as database:
            seen, unreadable = _count_unknown(database, since_ms, registry, rules)
        from lukhas.cli.tool_proposal import propose, write_yaml

        ranked = sorted(seen.items(), key=lambda item: (-item[1].offered - item[1].called, item[0]))
        proposals = [propose(name, found) for name, found in ranked]
        text = write_yaml(proposals)
        if write is not None:
            _write_new(write, text)
        if as_json:
            shown = [_describe_proposal(one) for one in proposals]
            file = None if write is None else str(write)
            print_json({"proposals": shown, "unreadable": unreadable, "file": file, "yaml": text})
        else:
            _print_learnt(proposals, unreadable, write, text)


def _print_learnt(proposals: list[Proposal], unreadable: int, write: Path | None, text: str) -> None:
    if unreadable:
        print_line(f"{unreadable} names were not those of functions, or had something in them that is never recorded.")
    if not proposals:
        print_line("Every function that was seen has a class.")
        return
    if write is None:
        print_line(text.rstrip("\n"))
        return
    columns = ("function", "class", "risk", "offered", "taken out", "called in vain")
    rows = [
        (p.name, p.tool_class or "to be chosen", p.risk, p.seen.offered, p.seen.stripped, p.seen.called)
        for p in proposals
    ]
    print_table(columns, rows)
    print_line()
    print_line(f"Wrote {write}. It allows nothing until you have edited it and LUKHAS_TOOLS names it.")


def _describe_proposal(one: Proposal) -> dict[str, Any]:
    counts = {"offered": one.seen.offered, "stripped": one.seen.stripped, "called": one.seen.called}
    return {"name": one.name, "class": one.tool_class, "risk": one.risk, **counts}


def _load(settings: Settings, policy: Path | None) -> tuple[Registry, Policy]:
    from lukhas.modulation.policy_reader import load_policy
    from lukhas.openai.tooling import load_registry

    return load_registry(settings.tools), load_policy(policy or settings.policy)


def _default_allowlist(policy: Policy) -> tuple[str, ...]:
    from lukhas.modulation.policy import TOOLS

    default = policy.defaults[TOOLS]
    return default if isinstance(default, tuple) else ()


def _describe(registry: Registry, name: str, allowlist: tuple[str, ...], policy: Policy) -> dict[str, Any]:
    tool = registry.find(name)
    if tool is None:
        raise AssertionError("every name of a registry is one of its tools")
    by_name = name in allowlist and name not in policy.tool_classes
    return {
        "name": name,
        "class": tool.tool_class,
        "risk": tool.risk,
        "allowed": tool.tool_class in allowlist or by_name,
        "description": tool.description,
    }


def _read_since(since: str | None) -> int | None:
    return None if since is None else read_moment(since, SystemClock().now_ms(), "--since")


@contextmanager
def _open(settings: Settings) -> Generator[Database]:
    from lukhas.storage import migrate

    with open_existing(settings) as database:
        if not migrate.is_current(database):
            raise StorageUnavailable(
                "The database is not at this program's revision.", hint="Bring it there with: lukhas db upgrade"
            )
        yield database


def _read_incidents(database: Database, since_ms: int | None, tenant: str | None, limit: int) -> list[dict[str, Any]]:
    from sqlalchemy import desc, or_, select

    from lukhas.storage.metadata import INCIDENT

    at = INCIDENT.c
    query = select(INCIDENT).where(or_(at.category == "tool", at.tool.is_not(None)))
    if since_ms is not None:
        query = query.where(at.time_ms >= since_ms)
    if tenant is not None:
        query = query.where(at.tenant == tenant)
    query = query.order_by(desc(at.time_ms), desc(at.incident_id)).limit(limit)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    return [
        {
            "incident_id": row.incident_id,
            "audit_id": row.audit_id,
            "time": format_utc(row.time_ms),
            "tenant": row.tenant,
            "tool": row.tool,
            "point": row.point,
            "category": row.category,
            "rule": row.rule,
            "severity": row.severity,
            "action": row.action,
        }
        for row in rows
    ]


def _count_unknown(
    database: Database, since_ms: int | None, registry: Registry, policy: Policy
) -> tuple[dict[str, Seen], int]:
    """Count the functions of recorded decisions and blocked calls that have no class, and names that are none."""
    from lukhas.cli.tool_proposal import NAME, Seen
    from lukhas.modulation.policy import UNKNOWN_CLASS
    from lukhas.replay.recorded import find_window, read_rows

    found: dict[str, Seen] = {}
    unreadable: set[str] = set()

    def count(name: Any, kind: str) -> None:
        if not isinstance(name, str) or not NAME.match(name):
            unreadable.add(str(name)[:100])
            return
        if name in _HOSTED or policy.classify_hosted(name) != UNKNOWN_CLASS:
            return
        if registry.classify(name) is None and policy.classify_tool(name) == UNKNOWN_CLASS:
            seen = found.setdefault(name, Seen())
            setattr(seen, kind, getattr(seen, kind) + 1)

    for row in read_rows(database, find_window(database, since_ms)):
        if row.body is not None:
            for name in _distinct(row.body.inputs.tools):
                count(name, "offered")
            for name in _distinct(row.body.stripped):
                count(name, "stripped")
    for name in _read_called(database, since_ms):
        count(name, "called")
    return found, len(unreadable)


def _distinct(names: list[Any]) -> list[Any]:
    # A long list ends with a note of what was cut, which is no name.
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def _read_called(database: Database, since_ms: int | None) -> list[str]:
    from sqlalchemy import select

    from lukhas.storage.metadata import INCIDENT

    at = INCIDENT.c
    query = select(at.tool).where(at.category == "tool", at.point == "call", at.tool.is_not(None))
    if since_ms is not None:
        query = query.where(at.time_ms >= since_ms)
    with database.reading() as connection:
        return [row[0] for row in connection.execute(query).all()]


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(f"{path} is there already.", hint="Choose another path; nothing was changed.") from None
