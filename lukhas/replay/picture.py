"""The distributions of a simulation as one PNG, by matplotlib (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lukhas.replay.page import AFTER, BEFORE

_COLUMNS: Final = 3
_MOST_WORDS: Final = 8
_LONGEST_WORD: Final = 28


def draw_report(report: dict[str, Any], path: Path) -> None:
    """Draw each parameter's distribution before and after, changed parameters first.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    shown = [
        (name, change)
        for name, change in report["parameters"].items()
        if any(change["histogram"]["before"]) or any(change["histogram"]["after"])
    ]
    shown.sort(key=lambda item: -item[1]["changed"])
    count = max(len(shown), 1)
    rows = -(-count // _COLUMNS)
    figure: Any = Figure(figsize=(5.0 * _COLUMNS, 3.1 * rows + 1.0), dpi=110, layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False)
    spots = [axes[place // _COLUMNS][place % _COLUMNS] for place in range(rows * _COLUMNS)]
    for spot in spots[len(shown) :]:
        spot.set_axis_off()
    for spot, (name, change) in zip(spots, shown, strict=False):
        _draw_one(spot, name, change)
    share = f", {report['changed'] / report['simulated']:.1%} of them changed" if report["simulated"] else ""
    title = figure.suptitle(f"{report['simulated']:,} recorded calls by {report['policy']}{share}", fontsize=13)
    title.set_parse_math(False)
    figure.savefig(path, format="png")


def _draw_one(axes: Any, name: str, change: dict[str, Any]) -> None:
    histogram = change["histogram"]
    if "edges" in histogram:
        edges = histogram["edges"]
        axes.stairs(histogram["before"], edges, fill=True, color=BEFORE, alpha=0.35, label="as recorded")
        axes.stairs(histogram["before"], edges, color=BEFORE, linewidth=1.0)
        axes.stairs(histogram["after"], edges, color=AFTER, linewidth=2.0, label="by the candidate")
        axes.set_ylabel("calls")
        axes.set_ylim(bottom=0)
    else:
        _draw_words(axes, histogram)
    said = f"{change['changed']:,} calls change" if change["changed"] else "unchanged"
    axes.set_title(f"{name}\n{said}", fontsize=10, parse_math=False)
    axes.grid(visible=True, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _draw_words(axes: Any, histogram: dict[str, Any]) -> None:
    rows = sorted(
        zip(histogram["values"], histogram["before"], histogram["after"], strict=True),
        key=lambda row: max(row[1], row[2]),
    )[-_MOST_WORDS:]
    places = range(len(rows))
    axes.barh([p + 0.2 for p in places], [row[1] for row in rows], 0.38, color=BEFORE, alpha=0.6, label="as recorded")
    axes.barh([p - 0.2 for p in places], [row[2] for row in rows], 0.38, color=AFTER, label="by the candidate")
    words = [row[0] if len(row[0]) <= _LONGEST_WORD else row[0][: _LONGEST_WORD - 1] + "\u2026" for row in rows]
    axes.set_yticks(list(places), words, fontsize=8, parse_math=False)
    axes.set_xlabel("calls")
