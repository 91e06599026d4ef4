"""Flags from the environment and from code, read once into a dictionary.

`LUKHAS_FLAG_<NAME>` sets a flag; a named flag has a default of its own, and any other name takes the default that the
question carries. A reload builds a new dictionary and swaps one reference, so that readers need no lock.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from lukhas.errors import SettingsError

PREFIX: Final = "LUKHAS_FLAG_"
_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class FlagDoc:
    """One named flag as the reference documents it.

    Attributes:
        name: upper case; `LUKHAS_FLAG_<name>` sets it.
        default: its value where nothing sets it.
        doc: what being on means.
        kind: a `safety` flag has a strict value, which a source that cannot be read falls back to.
        strict: the strict value of a safety flag.
        words: the two words (off, on) of a flag that is written as a choice.
    """

    name: str
    default: bool
    doc: str
    kind: Literal["release", "safety"] = "release"
    strict: bool | None = None
    words: tuple[str, str] | None = None


NAMED_FLAGS: Final[Mapping[str, FlagDoc]] = {
    flag.name: flag
    for flag in (
        FlagDoc("BROWSER_TOOL", False, "Adds the class browser to the default allowlist.", "safety", False),
        FlagDoc("CODE_EXEC_TOOL", False, "Adds the class code_exec to the default allowlist.", "safety", False),
        FlagDoc("STRICT_DEFAULT", False, "Makes safety mode strict the default.", "safety", True),
        FlagDoc("SENSOR_ALIGNMENT_RISK", True, "Lets findings that block nothing tighten their call.", "safety", True),
        FlagDoc("TOOL_ANALYTICS", True, "Counts tool calls by name and outcome."),
        FlagDoc("ADMIN_DASHBOARD", True, "Serves the admin pages."),
        FlagDoc("DNA_DUAL_WRITE", False, "Writes to the DNA store and to the legacy one."),
        FlagDoc("DNA_READ_SHADOW", False, "Reads from both stores and logs what differs."),
        FlagDoc("DNA_CUTOVER_READ_FROM", False, "Which store is read: legacy or dna.", words=("legacy", "dna")),
        FlagDoc("DNA_ENCRYPT_PERSONAL", True, "Encrypts personal payloads."),
    )
}

_snapshot: dict[str, bool] | None = None


def is_enabled(key: str, default: bool = False) -> bool:
    """Tell whether a flag is on.

    Args:
        key: a flag's name in any case, with `_` or `-`; `tool_analytics` is `TOOL_ANALYTICS`.
        default: the answer for a name that nothing sets and that is not a named flag.

    Raises:
        SettingsError: at the first question of a process only, when a `LUKHAS_FLAG_*` variable cannot be read. After
            that such a flag has its strict value, or its default where it has none. `reload` at start tells earlier.
    """
    snapshot = _snapshot
    if snapshot is None:
        reload()
        return is_enabled(key, default)
    value = snapshot.get(key)
    if value is None:
        value = snapshot.get(key.upper().replace("-", "_"), default)
    return value


def reload(environ: Mapping[str, str] | None = None) -> None:
    """Read every flag anew, and let the next question see it.

    Args:
        environ: variables by name; the process's own when None.

    Raises:
        SettingsError: a value that is none of the allowed words. Values are never shown. What was in force stays; the
            first time in a process, where nothing was, everything else takes effect.
    """
    global _snapshot
    found, wrong = _read(os.environ if environ is None else environ)
    if not wrong or _snapshot is None:
        _snapshot = found
    if wrong:
        flag = NAMED_FLAGS.get(wrong[0].removeprefix(PREFIX).upper())
        words = flag.words if flag is not None and flag.words else ("1", "true", "yes", "on", "0", "false", "no", "off")
        raise SettingsError(f"{wrong[0]} must be one of {', '.join(words)}.", param=wrong[0])


def _read(environ: Mapping[str, str]) -> tuple[dict[str, bool], list[str]]:
    found = {name: flag.default for name, flag in NAMED_FLAGS.items()}
    wrong: list[str] = []
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or not text.strip():
            continue
        name = variable.removeprefix(PREFIX).upper()
        flag = NAMED_FLAGS.get(name)
        value = _parse(text.strip().lower(), flag)
        if value is not None:
            found[name] = value
            continue
        wrong.append(variable)
        if flag is not None and flag.strict is not None:
            found[name] = flag.strict
    # The question's own spelling is looked up first, so that the usual one in lower case costs one read.
    return found | {name.lower(): value for name, value in found.items()}, wrong


def _parse(text: str, flag: FlagDoc | None) -> bool | None:
    if flag is not None and flag.words is not None:
        return {flag.words[0]: False, flag.words[1]: True}.get(text)
    return True if text in _ON else False if text in _OFF else None
