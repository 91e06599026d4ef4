"""`lukhas policy plot`: what a parameter does as signals rise."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.errors import InvalidRequest, UnavailableError
from lukhas.settings import load_settings

if TYPE_CHECKING:
    from lukhas.modulation.sensitivity import Line, Sensitivity

_SHOWN_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


def plot_policy(
    parameter: Annotated[str, typer.Argument(help="The parameter, such as temperature or tools.")],
    policy: Annotated[Path | None, typer.Option(help="Policy file (default: LUKHAS_POLICY, else packaged).")] = None,
    against: Annotated[
        str | None, typer.Option(help="One signal for its line alone, or two as A,B for a heat map.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="PNG to write (default: PARAMETER.png; with --json none).")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a parameter against each signal, or over any two, as a PNG."""
    with failing_clearly(as_json):
        path = policy or load_settings(config_path=config).settings.policy
        from lukhas.modulation.dispatcher import Dispatcher
        from lukhas.modulation.policy_reader import load_policy
        from lukhas.modulation.sensitivity import measure_sensitivity

        signals = [part.strip() for part in against.split(",")] if against is not None else []
        if len(signals) > 2 or not all(signals):
            raise InvalidRequest("--against takes one signal, or two as A,B.", param="--against")
        x, y = (*signals, None, None)[:2]
        found = measure_sensitivity(Dispatcher(load_policy(path)), parameter, x, y)
        picture = out or (None if as_json else Path(f"{parameter}.png"))
        if picture is not None:
            _draw(found, picture)
        if as_json:
            import msgspec

            print_json({**msgspec.to_builtins(found), "picture": None if picture is None else str(picture)})
            return
        _print(found)
        print_line()
        print_line(f"Wrote {picture}")


def _draw(found: Sensitivity, path: Path) -> None:
    if find_spec("matplotlib") is None:
        raise UnavailableError(
            "Pictures are drawn by matplotlib, which is not installed.",
            hint="Run: pip install 'lukhas-pwm[plot]'. The figures alone: --json",
        )
    from lukhas.modulation.sensitivity_picture import draw_sensitivity

    draw_sensitivity(found, path)


def _print(found: Sensitivity) -> None:
    print_line(f"{found.parameter} under {show(found.name)} ({found.policy}), default {show(found.default)}")
    print_line()
    columns = ("signal", "role", *(f"at {level:g}" for level in _SHOWN_LEVELS), "map")
    rows = [
        (line.signal, line.role, *(show(_value_at(line, level)) for level in _SHOWN_LEVELS), line.maps)
        for line in found.lines
    ]
    print_table(columns, rows)


def _value_at(line: Line, level: float) -> object:
    return line.values[line.levels.index(level)]
