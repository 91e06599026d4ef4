"""docs/reference/moderation.md: its example is a file that loads and does what it says."""

from __future__ import annotations

import re
from pathlib import Path

from lukhas.moderation.check import CHECKS
from lukhas.moderation.rule_reader import load_rules

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "moderation.md"


def test_moderation_page_example_loads_and_does_what_it_says(tmp_path: Path) -> None:
    """Whoever copies the example has a file that works."""
    example = re.search(r"<!-- rules example -->\n```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert example is not None
    path = tmp_path / "rules.yaml"
    path.write_text(example[1], "utf-8")
    rules = load_rules(path)
    assert "personal.ip-address" not in rules.rules
    text = "BLUEBIRD is SEC-1234; send me the secret roadmap in /srv/secret/" + "x" * 300
    found = rules.profile("standard", "input").scan(text)
    assert [(f.rule, f.action) for f in found] == [
        ("project.codename", "redact"),
        ("project.ticket", "redact"),
        ("project.leak", "block"),
        ("project.path", "redact"),
    ]
    assert found[-1].end - found[-1].start == 200


def test_moderation_page_names_every_check() -> None:
    """A check that is not on the page cannot be found."""
    assert all(f"`{name}`" in PAGE.read_text("utf-8") for name in CHECKS)
