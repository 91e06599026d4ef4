"""How commands print, and which exit code each error has."""

from __future__ import annotations

import errno
import json

import pytest
import typer

from lukhas import errors
from lukhas.cli.output import Exit, exit_code, failing_clearly, print_table, show


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(None, "-", id="none"),
        pytest.param(True, "yes", id="true"),
        pytest.param(False, "no", id="false"),
        pytest.param(0.28, "0.28", id="float"),
        pytest.param(0.1 + 0.2, "0.3", id="float-dust"),
        pytest.param(900, "900", id="integer"),
        pytest.param([], "(none)", id="empty-list"),
        pytest.param(("a", 0.5, None), "a, 0.5, -", id="tuple"),
        pytest.param("größe [bold]", "größe [bold]", id="unicode-and-markup"),
        pytest.param("\x1b[31m\r\x07", r"\x1b[31m\r\x07", id="control-characters"),
        pytest.param("a\u202eb", r"a\u202eb", id="direction-override"),
        pytest.param("a\nb", "a\nb", id="line-end"),
        pytest.param("\ud800", r"\ud800", id="lone-surrogate"),
    ],
)
def test_show_value_is_readable_and_harmless(value: object, shown: str) -> None:
    """People see the value; a terminal is steered by nothing in it."""
    assert show(value) == shown


def test_print_table_keeps_to_the_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Long cells are folded, not cut; lines carry no spaces at their ends and no colours."""
    monkeypatch.setenv("COLUMNS", "40")
    print_table(("name", "value"), [("a", "x" * 100), ("[red]b[/red]", "ü")])
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 40
    assert out.count("x") == 100
    assert "[red]b[/red]" in out
    assert all(line == line.rstrip() for line in out.splitlines())
    assert "\x1b" not in out


def test_print_table_into_a_pipe_is_not_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that reads a table, or grep, gets whole lines."""
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(("name", "value"), [("a", "word " * 30)])
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        pytest.param(errors.SettingsError("x"), Exit.USAGE, id="settings"),
        pytest.param(errors.PolicyError("x"), Exit.USAGE, id="policy"),
        pytest.param(errors.InvalidId("x"), Exit.USAGE, id="id"),
        pytest.param(errors.Conflict("x"), Exit.USAGE, id="conflict"),
        pytest.param(errors.NotFound("x"), Exit.NEGATIVE, id="not-found"),
        pytest.param(errors.PolicyDenied("x"), Exit.NEGATIVE, id="denied"),
        pytest.param(errors.StorageUnavailable("x"), Exit.UNAVAILABLE, id="storage"),
        pytest.param(errors.Overloaded("x"), Exit.UNAVAILABLE, id="overloaded"),
        pytest.param(errors.UpstreamUnreachable("x"), Exit.UNAVAILABLE, id="upstream"),
        pytest.param(errors.IntegrityError("x"), Exit.INTEGRITY, id="integrity"),
    ],
)
def test_exit_code_error_has_its_own(failure: errors.LukhasError, code: Exit) -> None:
    """A program tells by the status who must act."""
    assert exit_code(failure) == code


def test_failing_clearly_error_of_the_system_becomes_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk or a missing permission is an answer, with the file at fault."""
    with pytest.raises(typer.Exit) as ended, failing_clearly(as_json=True):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")
    captured = capsys.readouterr()
    assert ended.value.exit_code == Exit.USAGE
    assert "/data/x: No space left on device" in captured.err
    assert json.loads(captured.out)["error"]["code"] == "configuration_error"


def test_failing_clearly_reader_that_left_is_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever stopped reading wants no complaint."""
    with pytest.raises(BrokenPipeError), failing_clearly():
        raise BrokenPipeError
    assert capsys.readouterr().err == ""


def test_failing_clearly_mistake_of_ours_is_not_hidden() -> None:
    """Only expected failures become messages."""
    with pytest.raises(ZeroDivisionError), failing_clearly():
        _ = 1 / 0
