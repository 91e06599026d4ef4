"""`lukhas policy import`: a policy of an older format, in the current schema."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lukhas.cli.output import Exit, JsonOption, failing_clearly, print_json, print_line, show_text
from lukhas.errors import Conflict, PolicyError

if TYPE_CHECKING:
    from lukhas.modulation.importer import Imported
    from lukhas.modulation.old_policy import Remark


def import_policy_file(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The older policy file.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the new one (default: standard output).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    force_draft: Annotated[
        bool, typer.Option("--force-draft", help="Write it even where it does not load, to be mended by hand.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a policy of an older format into the current schema, and list what could not be carried over."""
    with failing_clearly(as_json):
        from lukhas.modulation.importer import import_policy
        from lukhas.modulation.policy import policy_id

        found = import_policy(read_old_file(old), str(old))
        if found.mistakes and not force_draft:
            _refuse(found, old, as_json)
        if out is not None:
            _write(out, _draft(found), force)
        if as_json:
            print_json(
                {**describe(found), "policy": policy_id(_draft(found)), "path": None if out is None else str(out)}
            )
            return
        if out is None:
            sys.stdout.write(_draft(found))
        # The policy itself may be going into a file by way of standard output.
        say = print_line if out is not None else _print_aside
        _print_report(found, say)
        if out is not None:
            say()
            say(f"Wrote {out}{', which does not load yet' if found.mistakes else ''}. Next:")
            say(f"  check it           lukhas policy show {out}")
            say(f"  see what it does   lukhas policy simulate --policy {out} --since 7d")


def read_old_file(path: Path) -> str:
    """Return a file's text.

    Raises:
        PolicyError: it is too large, or no UTF-8 text.
        OSError: it cannot be read.
    """
    from lukhas.modulation.yaml_source import MAX_BYTES

    with path.open("rb") as stream:
        raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise PolicyError(f"{path} is larger than {MAX_BYTES:,} bytes.")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise PolicyError(f"{path} is not UTF-8 text.") from wrong


def describe(found: Imported) -> dict[str, Any]:
    """Return an import as plain JSON types."""
    return {
        "format": found.format,
        "text": found.text,
        "left_out": [_plain(remark) for remark in found.left_out],
        "changed": [_plain(remark) for remark in found.changed],
        "added": list(found.added),
        "mistakes": [
            {"line": m.place.line, "column": m.place.column, "path": m.path, "message": m.message}
            for m in found.mistakes
        ],
    }


def _refuse(found: Imported, old: Path, as_json: bool) -> None:
    count = len(found.mistakes)
    lines = "".join(f"\n  {mistake}" for mistake in found.mistakes)
    failure = PolicyError(
        f"{old} makes a policy with {count} mistake{'s' * (count != 1)}, so nothing was written:{lines}",
        hint="To mend it by hand, write it as it is: --force-draft --out FILE",
        mistakes=found.mistakes,
    )
    if as_json:
        error = {"code": failure.code, "message": failure.message, "hint": failure.hint, "param": None}
        print_json({"error": error | {"mistakes": describe(found)["mistakes"]}, **describe(found)})
        sys.stderr.write(f"lukhas: {show_text(failure.message)}\n")
        raise typer.Exit(Exit.USAGE)
    _print_report(found, _print_aside)
    raise failure


def _draft(found: Imported) -> str:
    if not found.mistakes:
        return found.text
    lines = [f"#   {' '.join(show_text(str(mistake)).split())}" for mistake in found.mistakes]
    # At the end, so that the lines that they name are the lines of the file.
    return found.text + "\n".join(["", "# This draft does not load yet:", *lines]) + "\n"


def _write(path: Path, text: str, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(f"{path} is there already.", hint="Choose another path, or replace it with --force.") from None


def _plain(remark: Remark) -> dict[str, Any]:
    return {
        "line": remark.place.line,
        "column": remark.place.column,
        "path": remark.path,
        "reason": remark.reason,
    }


def _print_report(found: Imported, say: Any) -> None:
    for title, remarks in (("Not carried over", found.left_out), ("Went over as something else", found.changed)):
        if remarks:
            say(f"{title}:")
            for remark in remarks:
                place = f"  line {remark.place.line}, column {remark.place.column}"
                say(f"{place}: {show_text(remark.path)}: {show_text(remark.reason)}")
    if found.added:
        say("Added, since the current schema needs it:")
        for what in found.added:
            say(f"  {show_text(what)}")
    if not found.left_out:
        say("Everything was carried over.")


def _print_aside(text: str = "") -> None:
    sys.stderr.write(f"{text}\n")
