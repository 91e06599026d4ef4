"""The operator's redaction file: what it adds, what it keeps, and what it is refused for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest

from lukhas.audit.facade import audit_log_read, audit_log_write, close_default
from lukhas.audit.operator_pattern import OperatorPattern
from lukhas.audit.redaction import install_redactor, redact, redact_text
from lukhas.audit.redaction_reader import load_redactor, parse_redactor
from lukhas.errors import ConfigurationError


@pytest.fixture(autouse=True)
def default_again() -> Iterator[None]:
    """Leave the process with its default redactor."""
    yield
    install_redactor()


def test_redactor_of_a_file_redacts_its_names_and_patterns(tmp_path: Path) -> None:
    """Names count in any case and as the last words, patterns in any text, kinds and names that are kept stay."""
    path = tmp_path / "redaction.yaml"
    path.write_text(
        "keys: {employee_no: personal}\n"
        "patterns:\n  - {name: ticket, pattern: '(?i)tck-[0-9]{4}', needle: TCK-}\n"
        "keep: [phone, reset_password]\n"
    )
    redactor = load_redactor(path)
    assert redactor.redact({"Employee-No": 7, "x.employeeNo": "y", "n": "see tck-1234", "phone": "+442071838750"}) == {
        "Employee-No": "[redacted:personal]",
        "x.employeeNo": "[redacted:personal]",
        "n": "see [redacted:ticket]",
        "phone": "+442071838750",
    }
    assert redactor.redact({"resetPassword": "x", "password": "x"}) == {
        "resetPassword": "x",
        "password": "[redacted:password]",
    }


def test_install_redactor_serves_the_module_functions() -> None:
    """One call at start configures every place that redacts, and None takes it back."""
    assert redact_text("TCK-1234") == "TCK-1234"
    install_redactor(parse_redactor("patterns: [{name: ticket, pattern: 'TCK-[0-9]{4}'}]", "x"))
    assert redact_text("TCK-1234") == "[redacted:ticket]"
    assert redact({"a": ["TCK-1234"]}) == {"a": ["[redacted:ticket]"]}
    install_redactor()
    assert redact_text("TCK-1234") == "TCK-1234"


def test_redactor_without_a_file_or_with_an_empty_one_is_the_default(tmp_path: Path) -> None:
    """An empty file adds nothing."""
    assert load_redactor(None).redact_text("a@example.com") == "[redacted:email]"
    assert parse_redactor("# nothing yet\n", "x").redact({"password": "x"}) == {"password": "[redacted:password]"}


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        pytest.param("key: {a: b}", "line 1, column 1", "unknown key 'key'", id="unknown-key"),
        pytest.param("keys:\n  a: B!", "line 2, column 6", "lower-case word", id="kind"),
        pytest.param("keys:\n  a_b: x\n  A-B: y", "line 3, column 8", "same name", id="same-name"),
        pytest.param("keys: {a: x, a: y}", "line 1, column 14", "stands twice", id="twice"),
        pytest.param("keys: {'--': x}", "line 1, column 14", "letter", id="no-letter"),
        pytest.param("keys: [a]", "line 1, column 7", "mapping", id="no-mapping"),
        pytest.param("patterns: {}", "line 1, column 11", "list", id="no-list"),
        pytest.param("patterns: [{name: x}]", "line 1, column 12", "`pattern` is missing", id="no-pattern"),
        pytest.param("patterns:\n- {name: x, pattern: '('}", "line 2, column 22", "not a pattern", id="bad"),
        pytest.param("patterns:\n- {name: x, pattern: 'a*'}", "line 2, column 22", "empty text", id="empty"),
        pytest.param("patterns:\n- {name: x, pattern: '(a|aa)+$'}", "line 2, column 22", "too long", id="slow"),
        pytest.param("patterns:\n- {name: x, pattern: '(x+x+)+y'}", "line 2, column 22", "too long", id="slower"),
        pytest.param("patterns: [{name: x, pattern: a, flags: i}]", "line 1, column 34", "unknown key", id="flags"),
        pytest.param("patterns: [{name: 'X y', pattern: a}]", "line 1, column 19", "lower-case", id="name"),
        pytest.param("keep: phone", "line 1, column 7", "list", id="keep-text"),
        pytest.param("keep: [[phone]]", "line 1, column 8", "text", id="keep-list"),
        pytest.param("keep: &a [b]\nkeys: *a", "line 1, column 7", "mapping", id="alias"),
        pytest.param("a: [", "line", "not valid YAML", id="yaml"),
        pytest.param("[]", "line 1, column 1", "mapping", id="top"),
    ],
)
def test_redaction_file_with_a_mistake_is_refused_with_its_place(text: str, place: str, what: str) -> None:
    """Whoever wrote it finds the spot."""
    with pytest.raises(ConfigurationError) as refused:
        parse_redactor(text, "r.yaml")
    assert place in refused.value.message and what in refused.value.message


def test_redaction_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    """A missing file must not pass for an empty one."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_redactor(tmp_path / "none.yaml")
    (tmp_path / "r.yaml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8 at byte 0"):
        load_redactor(tmp_path / "r.yaml")


def test_operator_pattern_that_takes_too_long_redacts_the_whole_text() -> None:
    """What could not be searched is not known to be clean."""
    pattern = OperatorPattern("slow", r"[a-z]+[^a-z]x", "a")
    started = time.process_time()
    assert pattern.redact("a" * 300_000 + ".yx") == "[redacted:slow]"
    assert time.process_time() - started < 5
    assert pattern.redact("B" * 1_000_000) == "B" * 1_000_000


def test_audit_log_write_redacts_by_the_operators_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that uses the library is under the same file."""
    path = tmp_path / "redaction.yaml"
    path.write_text("keys: {employee_no: personal}\n")
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LUKHAS_REDACTION", str(path))
    try:
        assert audit_log_read(audit_log_write({"employeeNo": 7, "n": 7})) == {
            "employeeNo": "[redacted:personal]",
            "n": 7,
        } | dict.fromkeys(("audit_id", "time"), ANY)
    finally:
        close_default()
