"""`lukhas moderation`: what the rules find in a text, and which rules there are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import typer

from lukhas.cli.output import ConfigOption, Exit, JsonOption, failing_clearly, print_json, print_line, print_table
from lukhas.errors import InvalidRequest
from lukhas.settings import load_settings

if TYPE_CHECKING:
    from lukhas.moderation.rule import Finding
    from lukhas.moderation.ruleset import RuleSet

app = typer.Typer(help="What the moderation rules find.", no_args_is_help=True)

_MAX_CHARS: Final = 10_000_000
_SHOWN_FIRST: Final = 2
_SHOWN_LAST: Final = 1

RulesOption = Annotated[
    Path | None,
    typer.Option("--rules", help="Rules file that extends the packaged rules (default: LUKHAS_MODERATION_RULES)."),
]


@app.command("check")
def check(
    text: Annotated[str, typer.Argument(help="The text, or - to read it from standard input.")] = "-",
    point: Annotated[
        Literal["instruction", "input", "tool_result", "output"],
        typer.Option("--point", help="Where the text stands in a call."),
    ] = "input",
    preset: Annotated[
        Literal["standard", "high"] | None,
        typer.Option("--preset", help="Strictness (default: LUKHAS_MODERATION_PRESET)."),
    ] = None,
    rules: RulesOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the rules find in a text, where, and what would happen; exit code 1 if it would be blocked."""
    with failing_clearly(as_json):
        content = sys.stdin.read(_MAX_CHARS + 1) if text == "-" else text
        if len(content) > _MAX_CHARS:
            raise InvalidRequest(f"The text is longer than {_MAX_CHARS:,} characters.", hint="Check it in parts.")
        loaded, configured = _load(rules, config)
        chosen = preset or cast('Literal["standard", "high"]', configured)
        found = loaded.profile(chosen, point).scan(content)
        if as_json:
            findings = [describe(finding, content) for finding in found]
            print_json({"point": point, "preset": chosen, "rules": loaded.id, "findings": findings})
        elif not found:
            print_line("nothing found")
        else:
            rows = [(f.rule, f.category, f.severity, f.action, f"{f.start}-{f.end}", mask(content, f)) for f in found]
            print_table(("rule", "category", "severity", "action", "characters", "excerpt"), rows)
        if any(finding.action == "block" for finding in found):
            raise typer.Exit(Exit.NEGATIVE)


@app.command("rules")
def list_rules(rules: RulesOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the rules in force and what each leads to; a rules file is checked on the way."""
    with failing_clearly(as_json):
        loaded, _ = _load(rules, config)
        from lukhas.moderation.rule import POINTS, PRESETS

        if as_json:
            import msgspec

            listed = [msgspec.to_builtins(loaded.rules[rule_id]) for rule_id in sorted(loaded.rules)]
            print_json({"id": loaded.id, "rules": listed})
            return
        columns = ("rule", "category", "severity", "longest", *PRESETS)
        rows: list[tuple[object, ...]] = []
        for _, rule in sorted(loaded.rules.items()):
            actions = [
                " ".join(f"{point}:{rule.actions[preset][point]}" for point in POINTS if point in rule.actions[preset])
                if preset in rule.actions
                else "-"
                for preset in PRESETS
            ]
            rows.append((rule.id, rule.category, rule.severity, rule.longest_chars or "-", *actions))
        print_table(columns, rows)
        print_line(f"\n{len(rows)} rules, {loaded.id}")


def describe(finding: Finding, text: str) -> dict[str, Any]:
    """Return a finding as plain JSON types, with a masked excerpt."""
    return {
        "rule": finding.rule,
        "category": finding.category,
        "severity": finding.severity,
        "action": finding.action,
        "start": finding.start,
        "end": finding.end,
        "excerpt": mask(text, finding),
    }


def mask(text: str, finding: Finding) -> str:
    """Return the ends of a match, so that whoever has the text finds the place and a screen shows no secret."""
    found = text[finding.start : finding.end]
    if len(found) < 4 * (_SHOWN_FIRST + _SHOWN_LAST):
        return "*" * len(found)
    hidden = len(found) - _SHOWN_FIRST - _SHOWN_LAST
    return f"{found[:_SHOWN_FIRST]}[{hidden} characters]{found[-_SHOWN_LAST:]}"


def _load(rules: Path | None, config: Path | None) -> tuple[RuleSet, str]:
    from lukhas.moderation.rule_reader import load_rules

    settings = load_settings(config_path=config).settings
    return load_rules(rules or settings.moderation_rules), settings.moderation_preset
