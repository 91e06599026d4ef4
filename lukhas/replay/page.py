"""The report of a simulation as one HTML page: no script, nothing that is loaded from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any, Final

BEFORE: Final = "#0072B2"
AFTER: Final = "#D55E00"
_WIDTH: Final = 360
_HEIGHT: Final = 150
_LEFT: Final = 8
_BOTTOM: Final = 22
_MOST_WORDS: Final = 12
_LONGEST_WORD: Final = 34
_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem .25rem 0;
border-bottom:1px solid var(--line);vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}.bad{color:#b00020;font-weight:600}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(22rem,1fr));gap:1.25rem}
figure{margin:0;padding:.75rem;border:1px solid var(--line);border-radius:6px}figcaption{font-weight:600}
figcaption small{font-weight:400;opacity:.75;display:block}svg{width:100%;height:auto;display:block}
svg text{font:11px system-ui,sans-serif;fill:currentColor}.key{display:inline-block;width:.8em;height:.8em;
margin:0 .35em 0 .9em}.table{overflow-x:auto}
"""


def render_page(report: dict[str, Any]) -> str:
    """Return the whole page for a report (`replay.report.describe`)."""
    title = f"Simulation of {report['policy']}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{escape(report['name'])}, from <code>{escape(report['source'])}</code>; "
        f"{_window(report)}</p>",
        _summary(report),
        _check(report["check"]),
        "".join(f"<p>{escape(note)}</p>" for note in report["notes"]),
        _changes(report),
        _figures(report),
        _transitions("Prompt styles", report["styles"]),
        _transitions("Safety modes", report["safety_modes"]),
        _tools(report["tools"]),
        _examples(report["examples"]),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _window(report: dict[str, Any]) -> str:
    since, until = report["since"], report["until"]
    if since is None and until is None:
        return "the whole log"
    return " ".join(f"{word} {escape(at)}" for word, at in (("since", since), ("until", until)) if at)


def _summary(report: dict[str, Any]) -> str:
    changed, simulated = report["changed"], report["simulated"]
    share = f" ({changed / simulated:.1%})" if simulated else ""
    refused = sum(report["refused"].values())
    text = f"<p><strong>{changed:,}</strong> of {simulated:,} calls would have been others{share}."
    if refused:
        text += f" {refused:,} more could not be decided by it: {escape('; '.join(report['refused']))}"
    return text + "</p>"


def _check(check: dict[str, Any]) -> str:
    count = check["mismatches"]
    if not count:
        return (
            f"<p>Check: {check['checked']:,} recorded decisions were decided again by their own revision, and each "
            "came out byte for byte as recorded.</p>"
        )
    rows = "".join(
        f'<tr><td class="n">{one["index"]}</td><td><code>{escape(one["audit_id"])}</code></td>'
        f"<td>{escape(', '.join(one['differs']))}</td></tr>"
        for one in check["listed"]
    )
    return (
        f'<p class="bad">Check: {count:,} records are not what their own revision decides. Until that is explained, '
        "nothing below can be relied on.</p>"
        f'<table><tr><th class="n">index</th><th>record</th><th>differs in</th></tr>{rows}</table>'
    )


def _changes(report: dict[str, Any]) -> str:
    rows: list[str] = []
    for name, change in report["parameters"].items():
        if not (change["changed"] or change["newly_set"] or change["no_longer_set"]):
            continue
        mean, largest = change.get("mean_change"), change.get("largest_change")
        cells = [
            f"{change['changed']:,}",
            f"{change['share']:.1%}",
            f"{change['tighter']:,}" if change["tighter_is"] else "-",
            f"{change['looser']:,}" if change["tighter_is"] else "-",
            "-" if mean is None else f"{mean:.6g}",
            "-" if largest is None else f"{largest:.6g}",
            f"{change['newly_set']:,}",
            f"{change['no_longer_set']:,}",
        ]
        rows.append(f"<tr><td>{escape(name)}</td>" + "".join(f'<td class="n">{cell}</td>' for cell in cells) + "</tr>")
    if not rows:
        return "<h2>Parameters</h2><p>No parameter would have had another value.</p>"
    heads = ("calls", "share", "tighter", "looser", "mean change", "largest", "newly set", "no longer set")
    head = "".join(f'<th class="n">{name}</th>' for name in heads)
    return (
        f'<h2>Parameters</h2><div class="table"><table><tr><th>parameter</th>{head}</tr>{"".join(rows)}</table></div>'
    )


def _figures(report: dict[str, Any]) -> str:
    drawn = [_figure(name, change) for name, change in report["parameters"].items() if _holds(change["histogram"])]
    if not drawn:
        return ""
    key = f'<span class="key" style="background:{BEFORE}"></span>as recorded'
    key += f'<span class="key" style="background:{AFTER}"></span>by the candidate'
    return f'<h2>Distributions</h2><p>Calls by value:{key}</p><div class="figures">{"".join(drawn)}</div>'


def _holds(histogram: dict[str, Any]) -> bool:
    return any(histogram["before"]) or any(histogram["after"])


def _figure(name: str, change: dict[str, Any]) -> str:
    histogram = change["histogram"]
    said = f"{change['changed']:,} calls change" if change["changed"] else "unchanged"
    outside = [histogram[side] for side in ("below", "above") if side in histogram and any(histogram[side].values())]
    if outside:
        before, after = (sum(one[when] for one in outside) for when in ("before", "after"))
        said += f"; outside the bounds: {before:,} before, {after:,} after"
    drawing = _columns(histogram) if "edges" in histogram else _bars(histogram)
    return f"<figure><figcaption>{escape(name)}<small>{said}</small></figcaption>{drawing}</figure>"


def _columns(histogram: dict[str, Any]) -> str:
    edges, before, after = histogram["edges"], histogram["before"], histogram["after"]
    most = max(*before, *after, 1)
    step = (_WIDTH - 2 * _LEFT) / len(before)
    floor = _HEIGHT - _BOTTOM
    shapes = [f'<line x1="0" y1="{floor}" x2="{_WIDTH}" y2="{floor}" stroke="currentColor" stroke-opacity=".4"/>']
    for place, pair in enumerate(zip(before, after, strict=True)):
        for half, (count, colour) in enumerate(zip(pair, (BEFORE, AFTER), strict=True)):
            if not count:
                continue
            height = max(1.0, count / most * (floor - 16))
            x = _LEFT + place * step + half * step * 0.45
            value = f"{edges[place]:g} to {edges[place + 1]:g}: {count:,} calls"
            shapes.append(
                f'<rect x="{x:.1f}" y="{floor - height:.1f}" width="{step * 0.42:.1f}" height="{height:.1f}" '
                f'fill="{colour}"><title>{value}</title></rect>'
            )
    marks = [(0, "start"), (len(before) // 2, "middle"), (len(before), "end")]
    for place, anchor in marks:
        x = _LEFT + place * step
        shapes.append(f'<text x="{x:.1f}" y="{_HEIGHT - 7}" text-anchor="{anchor}">{edges[place]:g}</text>')
    shapes.append(f'<text x="{_LEFT}" y="11">{most:,} calls</text>')
    return _svg(shapes, _HEIGHT)


def _bars(histogram: dict[str, Any]) -> str:
    rows = sorted(
        zip(histogram["values"], histogram["before"], histogram["after"], strict=True),
        key=lambda row: -max(row[1], row[2]),
    )
    most = max((max(before, after) for _, before, after in rows), default=1) or 1
    shapes: list[str] = []
    top = 4
    for word, *counts in rows[:_MOST_WORDS]:
        shown = word if len(word) <= _LONGEST_WORD else word[: _LONGEST_WORD - 1] + "\u2026"
        shapes.append(f'<text x="0" y="{top + 10}">{escape(shown)}</text>')
        for half, (count, colour) in enumerate(zip(counts, (BEFORE, AFTER), strict=True)):
            y = top + 14 + half * 10
            width = count / most * (_WIDTH - 80)
            shapes.append(f'<rect x="0" y="{y}" width="{max(width, 0.5):.1f}" height="8" fill="{colour}"/>')
            shapes.append(f'<text x="{width + 5:.1f}" y="{y + 8}">{count:,}</text>')
        top += 42
    if len(rows) > _MOST_WORDS:
        shapes.append(f'<text x="0" y="{top + 10}">and {len(rows) - _MOST_WORDS} more</text>')
        top += 16
    return _svg(shapes, top)


def _svg(shapes: list[str], height: int) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(shapes)}</svg>'


def _transitions(title: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    body = "".join(
        f'<tr><td>{escape(row["before"])}</td><td>{escape(row["after"])}</td><td class="n">{row["calls"]:,}</td></tr>'
        for row in rows
    )
    head = '<tr><th>as recorded</th><th>by the candidate</th><th class="n">calls</th></tr>'
    return f"<h2>{title}</h2><table>{head}{body}</table>"


def _tools(tools: dict[str, Any]) -> str:
    if not (tools["blocked"] or tools["allowed"]):
        return f"<h2>Tools</h2><p>The same tools in each of the {tools['calls']:,} calls that offered any.</p>"
    rows = [(name, "blocked", count) for name, count in tools["blocked"].items()]
    rows += [(name, "allowed", count) for name, count in tools["allowed"].items()]
    body = "".join(
        f'<tr><td>{escape(name)}</td><td>{what}</td><td class="n">{count:,}</td></tr>' for name, what, count in rows
    )
    return f'<h2>Tools</h2><table><tr><th>tool</th><th>would be</th><th class="n">calls</th></tr>{body}</table>'


def _examples(examples: list[dict[str, Any]]) -> str:
    if not examples:
        return ""
    body = "".join(
        f"<tr><td><code>{escape(one['audit_id'])}</code></td><td>{escape(', '.join(one['differs']))}</td></tr>"
        for one in examples
    )
    return f"<h2>Some of these calls</h2><table><tr><th>record</th><th>differs in</th></tr>{body}</table>"
