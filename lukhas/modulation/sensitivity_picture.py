"""A parameter's sensitivity as a PNG, by matplotlib (extra `plot`): lines along signals, or a heat map of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

from lukhas.modulation.sensitivity import Line, Plane, Sensitivity

# Okabe and Ito's colours, which people with any colour vision can tell apart; each line has a mark of its own too.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F00")
_MARKS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_LONGEST_WORD: Final = 40


def draw_sensitivity(found: Sensitivity, path: Path) -> None:
    """Draw a sensitivity; with a plane, the heat map and both lines are in one picture.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    words = None if found.bounds is not None else _list_words(found)
    figure: Any  # matplotlib's own types leave much unknown
    if found.plane is None:
        figure = Figure(figsize=(10.5, 6.0), dpi=120, layout="constrained")
        axes = figure.subplots()
        _draw_lines(axes, found, words)
    else:
        figure = Figure(figsize=(9.0, 7.2), dpi=120, layout="constrained")
        axes = figure.subplots()
        _draw_plane(figure, axes, found, found.plane, words)
    where = f"{found.name} ({found.policy})" if len(found.name) <= _LONGEST_WORD else found.policy
    title = figure.suptitle(f"{found.parameter} under {where}", fontsize=13, fontweight="bold")
    title.set_parse_math(False)
    figure.savefig(path, format="png")


def _draw_lines(axes: Any, found: Sensitivity, words: list[str] | None) -> None:
    mapped = [line for line in found.lines if line.maps is not None or len(found.lines) == 1]
    still = [line.signal for line in found.lines if line not in mapped]
    for place, line in enumerate(mapped):
        colour, mark = _COLOURS[place % len(_COLOURS)], _MARKS[place % len(_MARKS)]
        is_guard = line.role == "guard"
        label = f"{line.signal} (guard)" if is_guard else line.signal
        values = _heights(line.values, words)
        axes.plot(
            line.levels,
            values,
            color=colour,
            linewidth=3.0 if is_guard else 1.8,
            linestyle="--" if is_guard else "-",
            label=label,
            marker=mark,
            markersize=5.5,
            # Shifted against each other, so that marks on shared stretches stay apart.
            markevery=(4 + 3 * place, 21),
            zorder=4 if is_guard else 3,
        )
        if is_guard and words is None:
            _draw_limit(axes, line, colour)
    if words is None and found.bounds is not None:
        low, high = found.bounds
        for edge, name in ((low, "lowest"), (high, "highest")):
            axes.axhline(edge, color="0.45", linewidth=1.0, linestyle=(0, (1, 2)))
            axes.annotate(
                f"{name} allowed: {edge:g}",
                (0.0, edge),
                xytext=(3, 3),
                textcoords="offset points",
                color="0.35",
                size=8,
            )
        axes.axhline(cast(float, found.default), color="0.75", linewidth=6.0, zorder=1, label="default")
        room = (high - low or 1.0) * 0.08
        axes.set_ylim(low - room, high + room)
        axes.set_ylabel(f"{found.parameter} ({found.unit})" if found.unit else found.parameter)
    else:
        names = words or []
        axes.set_yticks(range(len(names)), [_shorten(name) for name in names], parse_math=False)
        axes.set_ylim(-0.5, max(len(names) - 0.5, 0.5))
        axes.set_ylabel(found.parameter)
    axes.set_xlim(-0.01, 1.01)
    axes.set_xlabel("level of the signal (ratio), all other signals absent")
    axes.set_title(_say(found, still), fontsize=9, color="0.3", loc="left", parse_math=False)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def _draw_limit(axes: Any, line: Line, colour: str) -> None:
    points = [(level, limit) for level, limit in zip(line.levels, line.limits, strict=True) if limit is not None]
    if points and any(limit != value for (_, limit), value in zip(points, line.values[-len(points) :], strict=True)):
        levels, limits = zip(*points, strict=True)
        label = f"caller's limit by {line.signal}"
        axes.plot(levels, limits, color=colour, linewidth=1.4, linestyle=":", label=label)


def _draw_plane(figure: Any, axes: Any, found: Sensitivity, plane: Plane, words: list[str] | None) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    grid = [_heights(row, words) for row in plane.values]
    if words is None and found.bounds is not None:
        low, high = found.bounds
        drawn = axes.pcolormesh(plane.x, plane.y, grid, cmap="viridis", vmin=low, vmax=high, shading="nearest")
        bar = figure.colorbar(
            drawn, ax=axes, label=f"{found.parameter} ({found.unit})" if found.unit else found.parameter
        )
        bar.ax.axhline(cast(float, found.default), color="white", linewidth=2)
        least, most = min(map(min, grid)), max(map(max, grid))
        if most > least:
            lines = axes.contour(plane.x, plane.y, grid, levels=7, colors="white", linewidths=0.7, alpha=0.8)
            axes.clabel(lines, fontsize=8, fmt="%g")
        note = (
            f"bounds {low:g} to {high:g}, here {least:g} to {most:g}; white: default, and the least levels that count"
        )
    else:
        names = words or []
        colours = ListedColormap([_COLOURS[place % len(_COLOURS)] for place in range(max(len(names), 1))])
        norm = BoundaryNorm([place - 0.5 for place in range(max(len(names), 1) + 1)], colours.N)
        drawn = axes.pcolormesh(plane.x, plane.y, grid, cmap=colours, norm=norm, shading="nearest")
        bar = figure.colorbar(drawn, ax=axes, ticks=list(range(len(names))))
        bar.ax.set_yticklabels([_shorten(name) for name in names], parse_math=False)
        note = "all other signals absent; dashed: the least level that counts"
    roles = {line.signal: line.role for line in found.lines}
    axes.set_xlabel(f"{plane.x_signal} ({roles[plane.x_signal]}), level")
    axes.set_ylabel(f"{plane.y_signal} ({roles[plane.y_signal]}), level")
    axes.set_title(note, fontsize=9, color="0.3", loc="left")
    for line in found.lines:
        draw = axes.axvline if line.signal == plane.x_signal else axes.axhline
        draw(line.min_level, color="white", linewidth=1.0, linestyle="--", alpha=0.9)


def _say(found: Sensitivity, still: list[str]) -> str:
    tighter = {"first": "toward the first", "subset": "fewer"}.get(found.tighter or "", found.tighter or "no direction")
    said = f"tighter: {tighter}; dashed and bold: a guard, which only tightens"
    if still:
        said += f"; no effect: {', '.join(still)}"
    return said if len(said) <= 130 else said[:129] + "\u2026"


def _list_words(found: Sensitivity) -> list[str]:
    if found.members:
        return list(found.members)
    seen: dict[str, None] = {_word(found.default): None}
    for line in found.lines:
        seen |= dict.fromkeys(map(_word, line.values))
    for row in found.plane.values if found.plane else []:
        seen |= dict.fromkeys(map(_word, row))
    # The tightest list, which has the fewest entries, at the bottom.
    return sorted(seen, key=lambda word: (0 if word == "(none)" else word.count(",") + 1, word))


def _heights(values: list[Any], words: list[str] | None) -> list[float]:
    return values if words is None else [words.index(_word(value)) for value in values]


def _word(value: Any) -> str:
    return ", ".join(cast("list[str]", value)) or "(none)" if isinstance(value, list) else str(value)


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_WORD else text[: _LONGEST_WORD - 1] + "\u2026"
