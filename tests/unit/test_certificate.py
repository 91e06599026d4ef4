"""The certificate: its bytes, its hash, what it says as a whole, and the one that ships."""

from __future__ import annotations

import msgspec
import pytest

from lukhas.errors import IntegrityError
from lukhas.modulation.certificate import SCHEMA, Certificate, Statement, packaged_certificate, summarize
from lukhas.modulation.policy_reader import load_policy, read_packaged_text


def make(**changes: object) -> Certificate:
    statement = Statement("tighten:a:b", "raising a never loosens b", "refuted", {"levels": {"a": 0.1}}, 0.25)
    certificate = Certificate(
        SCHEMA, "pol_1", "00", "refuted", (statement,), ("größe",), "z3 5", "1.0", "2026-01-01T00:00:00Z"
    )
    return msgspec.structs.replace(certificate, **changes)


@pytest.mark.parametrize("form", ["encode", "encode_indented"])
def test_certificate_survives_writing_and_reading(form: str) -> None:
    """Both forms decode to the same certificate, whose hash is that of the canonical bytes."""
    certificate = make()
    again = Certificate.decode(getattr(certificate, form)())
    assert again == certificate
    assert again.hash == certificate.hash


def test_certificate_hash_changes_with_every_field() -> None:
    """No field is outside the hash."""
    changes = {
        **{"policy": "pol_2", "sha256": "01", "result": "proved", "statements": (), "warnings": ()},
        **{"solver": "", "version": "2", "time": "x", "schema": 9},
    }
    hashes = {make(**{name: value}).hash for name, value in changes.items()} | {make().hash}
    assert len(hashes) == len(changes) + 1
    assert set(changes) == set(Certificate.__struct_fields__)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"\xff", id="not-utf8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(make().encode().replace(b'"refuted"', b'"maybe"'), id="unknown-result"),
        pytest.param(make(schema=SCHEMA + 1).encode(), id="other-schema"),
        pytest.param(make().encode().replace(b'"sha256":"00",', b""), id="field-missing"),
    ],
)
def test_certificate_that_is_none_is_refused(data: bytes) -> None:
    """What cannot be read proves nothing."""
    with pytest.raises(IntegrityError):
        Certificate.decode(data)


@pytest.mark.parametrize(
    ("results", "is_complete", "expected"),
    [
        (["proved", "proved"], True, "proved"),
        (["proved", "proved"], False, "not proved"),
        (["proved", "not proved"], True, "not proved"),
        (["proved", "not proved", "refuted"], False, "refuted"),
        ([], True, "not proved"),
    ],
)
def test_summarize_never_says_proved_for_less(results: list[str], is_complete: bool, expected: str) -> None:
    """Only a complete proof of at least one statement, with nothing else, is one."""
    assert summarize(results, is_complete=is_complete) == expected  # type: ignore[arg-type]


def test_packaged_certificate_is_of_the_packaged_policy() -> None:
    """What ships is proved, and names the policy that ships beside it."""
    certificate = packaged_certificate()
    policy = load_policy()
    assert certificate.result == "proved"
    assert (certificate.policy, certificate.sha256) == (policy.id, policy.sha256)
    assert all(statement.result == "proved" for statement in certificate.statements)


def test_packaged_certificate_is_what_a_new_proof_says() -> None:
    """A new proof has the same statements, results and warnings; only times and versions may differ.

    To renew it: lukhas policy verify --write-certificate lukhas/modulation/modulation_policy.certificate.json
    """
    pytest.importorskip("z3", reason="the solver is not installed (extra verify)")
    from lukhas.modulation.prover import prove

    packaged, new = packaged_certificate(), prove(read_packaged_text(), source="packaged", deadline_s=60)
    assert [(s.id, s.text, s.result) for s in new.statements] == [(s.id, s.text, s.result) for s in packaged.statements]
    assert (new.policy, new.sha256, new.result, new.warnings) == (
        *(packaged.policy, packaged.sha256),
        *(packaged.result, packaged.warnings),
    )
