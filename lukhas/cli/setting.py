"""`lukhas config`: every setting with its value and where the value comes from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.settings import Loaded, Secret, describe_settings, load_settings

app = typer.Typer(help="The settings in force.", no_args_is_help=True)

HIDDEN: Final = "***"
_TELLING: Final = re.compile(r"(?i)((?:pass|pwd|secret|token|key)[^=&;]*=)[^&;]*")


@app.command("show")
def show_settings(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show every setting: its value, where that comes from, what it means. Secrets are hidden."""
    with failing_clearly(as_json):
        loaded = load_settings(config_path=config)
        settings = describe(loaded)
        if as_json:
            print_json({"file": None if loaded.file is None else str(loaded.file), "settings": settings})
            return
        print_line(f"settings file  {show(loaded.file or 'none')}")
        print_line()
        rows = [(one["variable"], one["value"], one["origin"], one["doc"]) for one in settings]
        print_table(("setting", "value", "origin", "meaning"), rows)


def describe(loaded: Loaded) -> list[dict[str, Any]]:
    """Return every setting as plain JSON types, secrets hidden."""
    return [
        {
            "name": doc.name,
            "variable": doc.variable,
            "value": _plain(getattr(loaded.settings, doc.name), doc.name),
            "origin": loaded.origins[doc.name],
            "default": _plain(doc.default, doc.name),
            "secret": doc.secret,
            "doc": doc.doc,
        }
        for doc in describe_settings()
    ]


def hide_password(url: str) -> str:
    """Return a database URL without what nobody may see: the password, and parameters whose name tells of a secret."""
    if not url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    if not parts.scheme:
        return HIDDEN
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    if parts.netloc and "@" in rest:
        return f"{parts.scheme}://{HIDDEN}"  # a password with / ? or # in it ends the host too early
    account, at, host = parts.netloc.rpartition("@")
    if ":" in account:
        account = f"{account.partition(':')[0]}:{HIDDEN}"
    shown = f"{parts.scheme}://{account}{at}{host}{parts.path}"
    query = _TELLING.sub(rf"\g<1>{HIDDEN}", parts.query)
    return f"{shown}?{query}" if query else shown


def _plain(value: object, name: str) -> Any:
    if isinstance(value, Secret):
        return HIDDEN
    if name == "database_url":
        return hide_password(str(value))
    return str(value) if isinstance(value, Path) else value
