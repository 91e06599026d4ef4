"""`lukhas policy`: look at a policy, and start one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lukhas.cli import policy_import, policy_plot, policy_revision, policy_simulate, policy_verify
from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.errors import Conflict
from lukhas.settings import load_settings

if TYPE_CHECKING:
    from lukhas.modulation.policy import ParameterSpec, Policy

app = typer.Typer(help="Look at a policy, and start one's own.", no_args_is_help=True)

DEFAULT_NAME: Final = "modulation_policy.yaml"

app.command("diff")(policy_revision.diff_policies)
app.command("verify")(policy_verify.verify_policy)
app.command("history")(policy_revision.show_history)
app.command("rollback")(policy_revision.roll_back)
app.command("reload")(policy_revision.reload_file)

app.command("simulate")(policy_simulate.simulate_policy)
app.command("plot")(policy_plot.plot_policy)
app.command("import")(policy_import.import_policy_file)


@app.command("show")
def show_policy(
    file: Annotated[
        Path | None, typer.Argument(help="Policy file (default: LUKHAS_POLICY, else the packaged one).")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Prove it now; else only what ships with a proof is shown as proved.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a policy, or every mistake in it with its place."""
    with failing_clearly(as_json):
        path = file or load_settings(config_path=config).settings.policy
        from lukhas.modulation.policy_reader import load_policy

        policy = load_policy(path)
        proof = policy_verify.proof_of(policy, is_made=verify)
        if as_json:
            print_json({**describe(policy), "proof": proof})
        else:
            _print(policy, proof)


@app.command("init")
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it; a folder gets the usual name.")] = Path(DEFAULT_NAME),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the packaged policy to a file of one's own, to be changed."""
    with failing_clearly(as_json):
        from lukhas.modulation.policy import policy_id
        from lukhas.modulation.policy_reader import read_packaged_text

        path = path / DEFAULT_NAME if path.is_dir() else path
        text = read_packaged_text()
        try:
            with path.open("w" if force else "x", encoding="utf-8", newline="") as file:
                file.write(text)
        except FileExistsError:
            raise Conflict(
                f"{path} is there already.", hint="Choose another path, or replace it with --force."
            ) from None
        if as_json:
            print_json({"path": str(path), "policy": policy_id(text)})
            return
        print_line(f"Wrote {path}, a copy of the packaged policy. Next:")
        print_line(f"  change it, then check it   lukhas policy show {path}")
        print_line(f"  see what it decides        lukhas modulate --policy {path} --signal stress=0.7")
        print_line(f"  serve with it              LUKHAS_POLICY={path} lukhas serve")
        print_line(
            "A running gateway takes a changed file up by itself, and keeps the last good one if it has mistakes."
        )


def describe(policy: Policy) -> dict[str, Any]:
    """Return a policy as plain JSON types."""
    maps: dict[str, dict[str, Any]] = {}
    for (signal, parameter), rule in policy.rules.items():
        place = {"line": rule.place.line, "column": rule.place.column}
        maps.setdefault(signal, {})[parameter] = {"rule": rule.text, "place": place}
    return {
        "policy": policy.id,
        "name": policy.name,
        "source": policy.source,
        "sha256": policy.sha256,
        "apply": "all" if policy.touch_all else "touched",
        "combine": "blend" if policy.blend else "precedence",
        "signals": {name: _plain(spec) for name, spec in policy.signals.items()},
        "parameters": {name: _plain(spec) for name, spec in policy.parameters.items()},
        "maps": maps,
        "styles": {name: _plain(style) for name, style in policy.styles.items()},
        "style_rules": [{"style": r.style, "when": r.text if r.node else None} for r in policy.style_rules],
        "tools": {name: _plain(tool) for name, tool in policy.tool_classes.items()},
        "feedback": {name: _plain(knob) for name, knob in policy.knobs.items()},
    }


def _plain(spec: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(spec).items() if name not in ("name", "parameter")}


def _print(policy: Policy, proof: str) -> None:
    print_line(f"policy   {policy.id}")
    print_line(f"name     {show(policy.name)}")
    print_line(f"source   {show(policy.source)}")
    print_line(f"proof    {proof}")
    print_line(f"apply    {'all' if policy.touch_all else 'touched'}")
    print_line(f"combine  {'blend' if policy.blend else 'precedence'}")
    print_line()
    print_table(
        ("signal", "role", "precedence", "weight", "cooldown", "ttl", "half-life", "min"),
        [
            (
                *(s.name, s.role, s.precedence, s.weight),
                *(_duration(s.cooldown_ms), _duration(s.ttl_ms), _duration(s.half_life_ms), s.min_level),
            )
            for s in policy.signals.values()
        ],
    )
    print_line()
    rows = [(p.name, p.default, _bounds(p), _tighter(p)) for p in policy.parameters.values()]
    print_table(("parameter", "default", "allowed", "tighter"), rows)
    print_line()
    rules = [(signal, name, rule.text, f"line {rule.place.line}") for (signal, name), rule in policy.rules.items()]
    print_table(("signal", "parameter", "map", "place"), rules)
    print_line()
    _print_styles(policy)
    print_line()
    print_table(
        ("tool class", "risk", "functions", "patterns", "run by the provider"),
        [
            (t.name, t.risk, t.functions or None, t.patterns or None, t.hosted or None)
            for t in policy.tool_classes.values()
        ],
    )


def _print_styles(policy: Policy) -> None:
    parts = ("preamble", "prefix", "stop", "moderation")
    used = [part for part in parts if any(getattr(style, part) for style in policy.styles.values())]
    rows = [
        (
            rule.style,
            rule.text if rule.node else "nothing above holds",
            *(getattr(policy.styles[rule.style], part) or None for part in used),
        )
        for rule in policy.style_rules
    ]
    print_table(("style", "chosen when", *used), rows)


def _duration(ms: int | None) -> str:
    if ms is None:
        return "none"
    return f"{ms // 1000} s" if ms and ms % 1000 == 0 else f"{ms} ms"


def _bounds(spec: ParameterSpec) -> str:
    if spec.kind == "enum":
        return show(spec.values)
    return "classes and names" if spec.kind == "tools" else f"{spec.low:g} to {spec.high:g}"


def _tighter(spec: ParameterSpec) -> str:
    return f"toward {spec.values[0]}" if spec.tighter == "first" else spec.tighter or "none"
