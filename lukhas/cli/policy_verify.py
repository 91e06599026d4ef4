"""`lukhas policy verify`: prove a policy, or show where it fails."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lukhas.cli.output import (
    ConfigOption,
    Exit,
    JsonOption,
    failing_clearly,
    print_json,
    print_line,
    print_table,
    show_text,
)
from lukhas.errors import IntegrityError, PolicyError, UnavailableError
from lukhas.settings import load_settings

if TYPE_CHECKING:
    from lukhas.modulation.certificate import Certificate
    from lukhas.modulation.policy import Policy

_KINDS: Final = {
    "total": "every map and rule has a value at every point",
    "range": "every style's map stays inside its bounds",
    "bounds": "whatever is decided fits its parameter",
    "map": "every guard's map only tightens",
    "tighten": "raising a guard never loosens a parameter, end to end",
    "load": "the loader takes the file",
}


def verify_policy(
    file: Annotated[
        Path | None, typer.Argument(help="Policy file (default: LUKHAS_POLICY, else the packaged one).")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, max=3600, help="Seconds that the proof may take.")
    ] = 60.0,
    certificate_path: Annotated[
        Path | None, typer.Option("--write-certificate", help="Write the certificate to this file.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove a policy over all levels of all signals, or show where it fails."""
    with failing_clearly(as_json):
        from lukhas.modulation.policy_reader import read_packaged_text, read_policy_text
        from lukhas.modulation.prover import MISSING, is_solver_installed, prove

        if not is_solver_installed():
            what, _, how = MISSING.partition(": ")
            raise UnavailableError(f"No policy can be proved here: {what}.", hint=f"Install it: {how}")
        path = file or load_settings(config_path=config).settings.policy
        text = read_packaged_text() if path is None else read_policy_text(path)
        source = "packaged" if path is None else str(path)
        with _answering_no(as_json), _progress() as report:
            found = prove(text, source=source, deadline_s=timeout_s, on_progress=report)
        if certificate_path is not None:
            certificate_path.write_bytes(found.encode_indented())
        if as_json:
            print_json(describe(found))
        else:
            _print(found, source)
            if certificate_path is not None:
                print_line(f"Wrote the certificate to {show_text(str(certificate_path))}.")
        if found.result != "proved":
            raise typer.Exit(Exit.NEGATIVE)


def proof_of(policy: Policy, *, is_made: bool) -> str:
    """Return 'proved', 'not proved' or 'refuted': by the certificate that ships, or by a new proof."""
    from lukhas.modulation.certificate import packaged_certificate
    from lukhas.modulation.prover import prove

    if is_made:
        with _progress() as report:
            return prove(policy.text, source=policy.source, on_progress=report).result
    try:
        shipped = packaged_certificate()
    except (OSError, IntegrityError):
        return "not proved"
    return shipped.result if shipped.sha256 == policy.sha256 else "not proved"


def describe(certificate: Certificate) -> dict[str, Any]:
    """Return a certificate as plain JSON types, with its hash and its counterexamples in words."""
    import msgspec

    from lukhas.modulation.counterexample import in_words

    document: dict[str, Any] = msgspec.to_builtins(certificate)
    for statement in document["statements"]:
        found = statement["counterexample"]
        statement["in_words"] = None if found is None else in_words(found)
    return {**document, "hash": certificate.hash}


def _print(certificate: Certificate, source: str) -> None:
    from lukhas.modulation.counterexample import in_words

    print_line(f"policy       {certificate.policy}")
    print_line(f"source       {show_text(source)}")
    print_line(f"result       {certificate.result}")
    print_line(f"solver       {certificate.solver or '-'}")
    print_line(f"certificate  {certificate.hash}")
    print_line()
    counts: dict[str, Counter[str]] = {}
    for statement in certificate.statements:
        counts.setdefault(statement.id.partition(":")[0], Counter())[statement.result] += 1
    results = ("proved", "not proved", "refuted")
    rows = [(_KINDS.get(kind, kind), *(count[result] or "-" for result in results)) for kind, count in counts.items()]
    print_table(("statement", *results), rows)
    for result in ("refuted", "not proved"):
        open_statements = [statement for statement in certificate.statements if statement.result == result]
        if open_statements:
            print_line(f"\n{result}:")
        for statement in open_statements:
            print_line(f"  {show_text(statement.text)}")
            if statement.counterexample is not None:
                print_line(f"    {show_text(in_words(statement.counterexample))}")
    if certificate.warnings:
        print_line("\nwarnings:")
    for warning in certificate.warnings:
        print_line(f"  {show_text(warning)}")


@contextmanager
def _answering_no(as_json: bool) -> Generator[None]:
    """Count a file with mistakes as a negative answer: whoever asks whether it is proved has one."""
    try:
        yield
    except PolicyError as wrong:
        with contextlib.suppress(typer.Exit), failing_clearly(as_json):
            raise wrong
        raise typer.Exit(Exit.NEGATIVE) from None


@contextmanager
def _progress() -> Generator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal, on standard error so that a report can go elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("statements"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("statements", total=None)
        yield lambda done, span: bar.update(task, completed=done, total=span)
