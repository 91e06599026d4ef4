"""docs/reference/redaction.md has every name, kind and form of the code, and its example loads."""

from __future__ import annotations

import re

from page import ROOT

from lukhas.audit.key_name import ANYWHERE, HARMLESS_ENDINGS, NAMES
from lukhas.audit.pattern import KEY_FORMS, VALUE_KINDS
from lukhas.audit.redaction_reader import parse_redactor

PAGE = (ROOT / "docs" / "reference" / "redaction.md").read_text("utf-8")


def test_redaction_page_names_everything() -> None:
    """What is redacted and not on the page would surprise."""
    words = set(re.findall(r"`([^`\n]+)`", PAGE))
    hints = {hint for _, found, _ in KEY_FORMS for hint in found}
    assert {*NAMES, *ANYWHERE, *HARMLESS_ENDINGS, *VALUE_KINDS, *hints} <= words
    for table in (NAMES, ANYWHERE):
        for kind in set(table.values()):
            row = f"| {kind} | {', '.join(f'`{name}`' for name in sorted(n for n in table if table[n] == kind))} |"
            assert row in PAGE, kind


def test_redaction_page_example_loads_and_does_what_it_says() -> None:
    """Whoever copies the example has a file that works."""
    example = re.search(r"<!-- redaction example -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    redactor = parse_redactor(example[1], "example")
    assert redactor.redact({"Employee No": 7, "n": "TCK-12345 +442071838750"}) == {
        "Employee No": "[redacted:personal]",
        "n": "[redacted:ticket] +442071838750",
    }
