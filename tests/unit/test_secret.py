"""A Secret stays secret, however it is printed, logged, copied or recorded."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
import structlog
from rich.console import Console
from rich.traceback import Traceback

from lukhas import Secret, audit_log_read, audit_log_write
from lukhas.audit.facade import close_default
from lukhas.audit.plain import to_plain
from lukhas.audit.record import AuditRecord, encode_record
from lukhas.audit.redaction import redact

TEXT = "canary-0f9e8d7c"


@dataclasses.dataclass
class Holder:
    """Something of a user's own that holds a secret."""

    held: Secret


@pytest.mark.parametrize(
    "show",
    [
        pytest.param(repr, id="repr"),
        pytest.param(str, id="str"),
        pytest.param(lambda s: f"{s} {s!r} {s!s} {s:>40}", id="f-string"),
        pytest.param(lambda s: "%s %r" % (s, s), id="percent"),  # noqa: UP031
        pytest.param(lambda s: "{0} {0!r}".format(s), id="format"),  # noqa: UP032
        pytest.param(lambda s: pprint.pformat({"a": [s]}), id="pprint"),
        pytest.param(lambda s: json.dumps({"a": s}, default=str), id="json"),
        pytest.param(lambda s: orjson.dumps({"a": s}, default=repr).decode(), id="orjson"),
        pytest.param(lambda s: repr(dataclasses.asdict(Holder(s))), id="asdict"),
        pytest.param(lambda s: repr(copy.copy(s)) + repr(copy.deepcopy([s])), id="copy"),
        pytest.param(lambda s: repr(to_plain({"a": s, s: 1})), id="plain"),
        pytest.param(lambda s: repr(redact({"a": [s, Holder(s)], s: s})), id="redact"),
        pytest.param(
            lambda s: encode_record(AuditRecord("note", "aud_1", "t", "k", None, 0, None, None, s)).head.decode(),
            id="record",
        ),
    ],
)  # fmt: skip
def test_secret_shown_in_any_way_hides_its_text(show: Any) -> None:
    """Only `reveal` gives it."""
    assert TEXT not in show(Secret(TEXT))
    assert Secret(TEXT).reveal() == TEXT


@pytest.mark.parametrize(
    "dump",
    [
        pytest.param(pickle.dumps, id="pickle"),
        pytest.param(json.dumps, id="json"),
        pytest.param(orjson.dumps, id="orjson"),
        pytest.param(msgspec.json.encode, id="msgspec"),
        pytest.param(msgspec.to_builtins, id="to-builtins"),
        pytest.param(lambda s: s.__getstate__(), id="state"),
        pytest.param(vars, id="vars"),
    ],
)
def test_secret_serialised_is_refused(dump: Any) -> None:
    """What would write it raises, and its message does not hold it."""
    with pytest.raises(TypeError) as refused:
        dump(Secret(TEXT))
    assert TEXT not in str(refused.value)


def test_secret_in_logs_and_tracebacks_with_locals_hides_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """The standard library's, structlog's and rich's own renderings."""
    held = Secret(TEXT)
    logging.getLogger("x").warning("held %s", held, extra={"held": held})
    rendered = [structlog.processors.JSONRenderer()(None, "info", {"held": held, "event": "x"})]
    rendered.append(structlog.dev.ConsoleRenderer()(None, "info", {"held": held, "event": "x"}))
    out = Console(file=io.StringIO(), width=120)
    try:
        raise ValueError("wrong")
    except ValueError as wrong:
        out.print(Traceback.from_exception(type(wrong), wrong, wrong.__traceback__, show_locals=True))
        told = traceback.TracebackException.from_exception(wrong, capture_locals=True)
        rendered += told.format()
    rendered += [caplog.text, out.file.getvalue()]  # pyright: ignore[reportAttributeAccessIssue] - a StringIO
    assert "held" in rendered[-1] and not any(TEXT in str(one) for one in rendered)


def test_secret_in_a_bundle_never_reaches_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle may hold anything."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path))
    try:
        audit_id = audit_log_write({"deep": [{"x": Secret(TEXT)}], "holder": Holder(Secret(TEXT))})
        assert TEXT not in repr(audit_log_read(audit_id))
    finally:
        close_default()
    assert not any(TEXT.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
