"""Write the reference pages that are made from the code: settings, errors, metrics.

`make docs` calls it; tests/architecture/test_reference.py fails where a page is not what this file would write.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from lukhas import errors
from lukhas.errors import LukhasError
from lukhas.settings import Secret, describe_settings

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "docs" / "reference"
MADE: Final = "<!-- Made by `make docs` from {source}; edit that instead. -->\n"
METRIC_KINDS: Final = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram"}

# What a person does about each error. The code alone decides; messages and hints say the particulars.
REMEDIES: Final[Mapping[str, str]] = {
    "internal_error": "Report it with the request id; it is a defect.",
    "configuration_error": "Correct the setting or file that the message names, then start again.",
    "settings_error": "Correct the variable that the message names; `lukhas config show` lists all with their origin.",
    "policy_invalid": "Correct the places that the message lists. A running gateway keeps its last good policy.",
    "expression_invalid": "Rewrite the expression at the line and column given; the hint says what is allowed there.",
    "request_error": "Correct the request.",
    "invalid_request": "Correct the field that `param` names.",
    "invalid_signal": "Send a level from 0 to 1 and a positive `ttl_ms`.",
    "unknown_signal": "Use a name that the policy declares; `lukhas policy show` lists them.",
    "invalid_id": "Send the identifier as it was given, prefix included.",
    "precondition_required": "Read the thing, then send its `ETag` as `If-Match`; `*` takes whatever is there.",
    "invalid_api_key": "Send a valid key as `Authorization: Bearer ...`; `lukhas key create` makes one.",
    "forbidden": "Use a key that has the scope which the message names.",
    "moderation_denied": "Change what the message names; do not retry it as it is. The incident names the rule.",
    "limit_reached": "Wait as long as `Retry-After` says.",
    "rate_limit_exceeded": "Wait as long as `Retry-After` says, or have the key's limits raised: `lukhas key limit`.",
    "insufficient_quota": "Wait for the next UTC day, or have the budget raised: `lukhas key limit`.",
    "moderation_unavailable": "See `/readyz`; calls are answered again once the moderator answers.",
    "policy_denied": "Change the request, or have the policy changed; do not retry it as it is.",
    "not_found": "Check the identifier and the tenant of the key.",
    "subject_erased": "Nothing: what was kept under an erased subject's key is gone for good, as it should be.",
    "conflict": "Read the thing again, then repeat the change on what you read.",
    "precondition_failed": "Read the thing again, decide again, and send its new `ETag` as `If-Match`.",
    "too_large": "Send less, or raise the limit that the message names.",
    "upstream_error": "Retry later; `/readyz` tells how the upstream does.",
    "upstream_unreachable": "Check `LUKHAS_UPSTREAM_BASE_URL` and the network. Nothing was sent; a retry is safe.",
    "upstream_broken": "Retry if a second answer does no harm: the upstream had received the call.",
    "upstream_timeout": "Retry if a second answer does no harm, or raise the `LUKHAS_UPSTREAM_*_TIMEOUT_S` settings.",
    "unavailable": "Retry later; `/readyz` tells what is missing.",
    "storage_unavailable": "Free disk space or bring the database back. Calls are refused rather than left unrecorded.",
    "overloaded": "Retry with a growing delay; if it lasts, add capacity.",
    "shutting_down": "Retry; another process, or this one after its restart, will answer.",
    "integrity_error": "Stop writing, keep the files, and compare them with a backup. Retrying cannot help.",
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as `lukhas/telemetry.py` declares it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    doc: str


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    rows = [
        (
            f"`{item.variable}`" + (f" or `{item.variable}_FILE`" if item.secret else ""),
            f"`{item.name}`",
            _default(item.default),
            item.doc,
        )
        for item in describe_settings()
    ]
    return (
        "# Settings\n\n"
        + MADE.format(source="`lukhas/settings.py`")
        + """
Strongest first: a command-line argument, the environment, the file that `LUKHAS_CONFIG` names (TOML or YAML), the
default. A file uses the name of the second column. An empty variable counts as unset. A name that does not exist is an
error at start, which tells the nearest right one.

A secret can stand in a file of its own: `LUKHAS_ADMIN_KEY_FILE=/run/secrets/admin_key`. Secrets are never printed,
neither by `lukhas config show` nor in an error. `lukhas config show` lists every value with its origin.

"""
        + _table(("variable", "in a file", "default", "meaning"), rows)
    )


def errors_page() -> str:
    """Return docs/reference/errors.md, with HTTP statuses where the HTTP edge assigns them."""
    statuses = _statuses()
    head = ["code", "class", *(["HTTP"] if statuses else []), "same request again", "meaning", "what to do"]
    rows: list[tuple[str, ...]] = []
    for kind in tree():
        http = [str(status_of(kind, statuses))] if statuses else []
        again = "may succeed" if kind.retryable else "will not"
        meaning = (kind.__doc__ or "").split("\n")[0]
        rows.append((f"`{kind.code}`", f"`{kind.__name__}`", *http, again, meaning, REMEDIES[kind.code]))
    return (
        "# Errors\n\n"
        + MADE.format(source="`lukhas/errors.py`")
        + """
A code is stable: programs decide by it, never by the message. Every error also carries a message, a hint (which may be
empty) and, where one is known, the field or setting at fault. A class stands below the class that it is a kind of.

"""
        + _table(tuple(head), rows)
    )


def metrics_page(source: str) -> str:
    """Return docs/reference/metrics.md for the text of `lukhas/telemetry.py`."""
    rows = [
        (f"`{served_name(m)}`", m.kind, ", ".join(f"`{label}`" for label in m.labels), m.doc) for m in metrics(source)
    ]
    return (
        "# Metrics\n\n"
        + MADE.format(source="`lukhas/telemetry.py`")
        + "\nServed at `/metrics` in the Prometheus text format, with the names below.\n\n"
        + _table(("metric", "kind", "labels", "meaning"), rows)
    )


def tree(root: type[LukhasError] = LukhasError) -> Iterator[type[LukhasError]]:
    """Yield every error class of `lukhas/errors.py`, parents before their children, in the file's order."""
    yield root
    for kind in vars(errors).values():
        if isinstance(kind, type) and kind.__base__ is root:
            yield from tree(cast("type[LukhasError]", kind))


def status_of(kind: type[LukhasError], statuses: Mapping[type[LukhasError], int]) -> int:
    """Return the HTTP status of a class: its own, or its nearest parent's; 500 where none is assigned."""
    return next((int(statuses[parent]) for parent in kind.__mro__ if parent in statuses), 500)


def metrics(source: str) -> list[Metric]:
    """Return the metrics that a source text declares by `lukhas.telemetry`'s classes, by name.

    Raises:
        ValueError: a metric whose name, text or labels are not written out, so that nobody can search for them.
    """
    found: list[Metric] = []
    for node in ast.walk(ast.parse(source)):
        kind = METRIC_KINDS.get(getattr(node.func, "id", "")) if isinstance(node, ast.Call) else None
        if not isinstance(node, ast.Call) or kind is None:
            continue
        try:
            name, doc, *rest = node.args
            labels = tuple(str(ast.literal_eval(label)) for label in rest) if kind == "counter" else ()
            found.append(Metric(str(ast.literal_eval(name)), kind, labels, str(ast.literal_eval(doc))))
        except ValueError:
            raise ValueError(f"line {node.lineno}: name, text and labels of a metric must be written out") from None
    return sorted(found, key=lambda metric: metric.name)


def served_name(metric: Metric) -> str:
    """Return the name under which Prometheus sees a metric: a counter's ends in `_total`, whatever was declared."""
    return f"{metric.name.removesuffix('_total')}_total" if metric.kind == "counter" else metric.name


def pages() -> dict[Path, str]:
    """Return every generated page by its path, as it should be now."""
    made = {FOLDER / "settings.md": settings_page(), FOLDER / "errors.md": errors_page()}
    telemetry = ROOT / "lukhas" / "telemetry.py"
    if telemetry.exists():
        made[FOLDER / "metrics.md"] = metrics_page(telemetry.read_text("utf-8"))
    return made


def _statuses() -> Mapping[type[LukhasError], int]:
    if importlib.util.find_spec("lukhas.api.problems") is None:
        return {}
    problems: Any = importlib.import_module("lukhas.api.problems")
    return problems.STATUS


def _default(value: object) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, Secret):
        return "a secret"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, Path):
        home = Path.home()
        return f"`~/{value.relative_to(home)}`" if value.is_relative_to(home) else f"`{value}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main() -> None:
    """Write the pages, and name those that changed."""
    for path, text in pages().items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
