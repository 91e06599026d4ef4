"""From YAML to a validated Policy, or to the list of everything that is wrong with the file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final, NoReturn

from lukhas.errors import PolicyError
from lukhas.modulation.document import MAX_MISTAKES, MistakeList, Table
from lukhas.modulation.map_reader import check_guards_tighten, read_maps, read_style_rules
from lukhas.modulation.parameter_reader import read_feedback, read_parameters, read_signals, read_tool_classes
from lukhas.modulation.policy import SAFETY_MODE, TOOLS, UNKNOWN_CLASS, ParameterSpec, Policy, Style
from lukhas.modulation.violation_reader import read_violations
from lukhas.modulation.yaml_source import MAX_BYTES, Mistake, Place, YamlMistake, parse_yaml

PACKAGED: Final = "modulation_policy.yaml"
VERSION: Final = 1


def read_packaged_text() -> str:
    """Return the text of the packaged policy."""
    return resources.files("lukhas.modulation").joinpath(PACKAGED).read_text("utf-8")


def load_policy(path: Path | str | None = None) -> Policy:
    """Read and validate a policy file; the packaged policy when no path is given.

    Raises:
        PolicyError: the file cannot be read, or has mistakes; `mistakes` lists each with line and column.
    """
    if path is None:
        return parse_policy(read_packaged_text(), "packaged")
    return parse_policy(read_policy_text(Path(path)), str(path))


def read_policy_text(path: Path) -> str:
    """Return the text of a policy file, which need not be a policy.

    Raises:
        PolicyError: the file cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as failure:  # ValueError: a path with a null byte
        reason = getattr(failure, "strerror", None) or failure
        raise PolicyError(f"The policy file {path} cannot be read: {reason}.") from failure
    if len(raw) > MAX_BYTES:
        _fail([Mistake(Place(1, 1), "", f"the file is larger than {MAX_BYTES:,} bytes")], str(path))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as wrong:
        line = raw.count(b"\n", 0, wrong.start) + 1
        column = wrong.start - raw.rfind(b"\n", 0, wrong.start)
        _fail([Mistake(Place(line, column), "", "not UTF-8 text")], str(path))


def parse_policy(text: str, source: str = "text", *, is_draft: bool = False) -> Policy:
    """Validate a policy's text.

    Args:
        text: the YAML.
        source: where it came from, for messages.
        is_draft: read it to be proved, not to be used: what a proof finds by itself (a guard's map that loosens, a
            division that may be one by zero) is left to the proof, which shows where it happens.

    Raises:
        PolicyError: with every mistake found.
    """
    try:
        root = parse_yaml(text)
    except YamlMistake as wrong:
        _fail([wrong.mistake], source)
    mistakes = MistakeList()
    table = Table(root, mistakes)
    if not isinstance(root.value, dict):
        _fail(mistakes.found, source)
    version = table.get("version", required=True)
    if version is not None and (version.value != VERSION or isinstance(version.value, bool)):
        mistakes.add(version, f"must be {VERSION}; this is the only version that this release reads")
    name = table.word("name", default="unnamed")
    apply = table.word("apply", ("touched", "all"), default="touched")
    combine = table.word("combine", ("precedence", "blend"), default="precedence")
    signals = read_signals(table.table("signals", required=True), mistakes)
    classes = read_tool_classes(table.table("tools"), mistakes)
    known_tools = frozenset(classes) | {UNKNOWN_CLASS} | {f for c in classes.values() for f in c.functions}
    parameters = read_parameters(table.table("parameters", required=True), known_tools, set(signals), mistakes)
    _check_required(parameters, signals.keys(), mistakes, table)
    rules = read_maps(table.table("maps"), signals, parameters, known_tools, mistakes, is_draft=is_draft)
    styles = _read_styles(table.table("styles", required=True))
    style_rules = read_style_rules(
        table.get("style_rules", required=True), set(styles), signals, parameters, mistakes, is_draft=is_draft
    )
    knobs = read_feedback(table.table("feedback"), parameters, mistakes)
    violations = read_violations(table.table("violations"), signals, mistakes)
    table.close()
    if not mistakes.found and not is_draft:
        for rule in rules.values():
            if signals[rule.signal].role == "guard":
                check_guards_tighten(rule, signals, parameters[rule.parameter], known_tools, mistakes)
    if mistakes.found:
        _fail(mistakes.found, source)
    return Policy(
        name=name,
        signals=dict(sorted(signals.items(), key=lambda item: (-item[1].precedence, item[0]))),
        # The mode is decided before the rest: in strict mode feedback may not loosen.
        parameters={SAFETY_MODE: parameters[SAFETY_MODE]} | parameters,
        rules=rules,
        styles=styles,
        style_rules=style_rules,
        tool_classes=classes,
        knobs=knobs,
        touch_all=apply == "all",
        blend=combine == "blend",
        violations=violations,
        text=text,
        source=source,
    )


def _check_required(parameters: dict[str, ParameterSpec], signals: object, mistakes: MistakeList, table: Table) -> None:
    mode = parameters.get(SAFETY_MODE)
    if mode is None or mode.kind != "enum" or mode.tighter != "first":
        mistakes.add(table.item, f"'parameters' must have '{SAFETY_MODE}', of type enum and tighter: first")
    tools = parameters.get(TOOLS)
    if tools is None or tools.kind != "tools":
        mistakes.add(table.item, f"'parameters' must have '{TOOLS}', of type tools")


def _read_styles(table: Table | None) -> dict[str, Style]:
    styles: dict[str, Style] = {}
    if table is None:
        return styles
    for name in table.entries:
        entry = table.table(name)
        if entry is None:
            continue
        stops = [stop for stop, _ in entry.words("stop", most=4)]
        styles[name] = Style(
            name,
            preamble=entry.word("preamble", default=""),
            prefix=entry.word("prefix", default=""),
            stop=tuple(stops),
            moderation=entry.word("moderation", ("standard", "high"), default="standard"),
        )
        entry.close()
    return styles


def _fail(found: list[Mistake], source: str) -> NoReturn:
    ordered = tuple(sorted(found))
    lines = "".join(
        f"\n  {source}:{m.place.line}:{m.place.column}: {m.path + ': ' * bool(m.path)}{m.message}" for m in ordered
    )
    count = f"{len(ordered)} mistakes" if len(ordered) > 1 else "one mistake"
    if len(ordered) >= MAX_MISTAKES:
        count = f"at least {count}"
    raise PolicyError(f"The policy has {count} and does not take effect:{lines}", mistakes=ordered)
