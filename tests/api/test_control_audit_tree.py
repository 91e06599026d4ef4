"""`/api/v1/audit`: checkpoint, key, tiles, consistency, receipts, as a stranger with a key reads them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from conftest import Answer, Gateway, Serve

from lukhas.audit.checkpoint import Checkpoint, open_checkpoint
from lukhas.audit.merkle import leaf_hash, verify_consistency
from lukhas.audit.note import NoteVerifier, parse_verifier
from lukhas.audit.proof import root_at
from lukhas.audit.receipt import check_receipt, parse_receipt
from lukhas.audit.tile import tile_path
from lukhas.errors import IntegrityError

BASE = "/api/v1/audit"


class HttpTiles:
    """Reads a gateway's tiles with some key."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self._gateway = gateway
        self._key = key

    def read(self, level: int, index: int, width: int) -> bytes:
        answer = self._gateway.http("GET", f"{BASE}/{tile_path(level, index, width)}", key=self._key)
        if answer.status != 200:
            raise IntegrityError(str(answer.body))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "immutable" in answer.headers["cache-control"] and "private" in answer.headers["cache-control"]
        return answer.body


def verifiers(gateway: Gateway) -> list[NoteVerifier]:
    """Return the log's keys, as the gateway gives them out."""
    answer = gateway.http("GET", f"{BASE}/key", key=gateway.key(tenant="stranger"))
    assert answer.status == 200 and answer.headers["content-type"] == "text/plain; charset=utf-8"
    return [parse_verifier(line) for line in answer.body.decode().splitlines()]


def receipt_of(gateway: Gateway, audit_id: str, query: str = "", **more: Any) -> Answer:
    return gateway.http("GET", f"{BASE}/{audit_id}/proof{query}", **more)


def fill(gateway: Gateway, size: int) -> None:
    """Let the log grow to some size."""
    while gateway.runtime.audit.source.size() < size:
        gateway.runtime.audit.append_sync(gateway.runtime.make_record("note", {}))


def sign(gateway: Gateway) -> Checkpoint:
    """Sign the log as it is, and return what the gateway then gives out."""
    gateway.runtime.custody.checkpoints.sign()
    answer = gateway.http("GET", f"{BASE}/checkpoint", key=gateway.key(tenant="stranger"))
    assert answer.status == 200 and answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    return open_checkpoint(answer.body, verifiers(gateway))


def test_receipt_of_a_call_is_there_at_once_and_checks(gateway: Gateway) -> None:
    """No wait for a checkpoint: the decision that was just made is covered."""
    own = gateway.key(tenant="acme")
    audit_id = gateway.chat(key=own).headers["x-lukhas-audit-id"]
    answer = receipt_of(gateway, audit_id, key=own)
    assert answer.status == 200, answer.body
    assert answer.headers["content-disposition"] == f'attachment; filename="{audit_id}.tlog-proof"'
    assert answer.headers["x-lukhas-audit-id"] == audit_id and "no-store" in answer.headers["cache-control"]
    receipt = parse_receipt(answer.body)
    check_receipt(receipt, verifiers(gateway))
    record = json.loads(receipt.data)
    assert (record["audit_id"], record["kind"], record["tenant"]) == (audit_id, "decision", "acme")
    gateway.wait_for(audit_id)
    outcome = parse_receipt(receipt_of(gateway, audit_id, "?record=outcome", key=own).body)
    check_receipt(outcome, verifiers(gateway))
    assert json.loads(outcome.data)["kind"] == "outcome"
    assert parse_receipt(receipt_of(gateway, audit_id, "?record=1", key=own).body).data == outcome.data


def test_receipt_is_for_those_who_may_read_the_record(gateway: Gateway) -> None:
    """The same rule as for the record, and the same 404 as for an id that is nobody's."""
    own = gateway.key(tenant="acme")
    audit_id = gateway.chat(key=own).headers["x-lukhas-audit-id"]
    for key in (own, gateway.key("audit", tenant="acme"), gateway.key("admin", tenant="other")):
        assert receipt_of(gateway, audit_id, key=key).status == 200
    unknown = receipt_of(gateway, "aud_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    for key in (gateway.key(tenant="acme"), gateway.key("audit", tenant="other"), gateway.key("signals")):
        refused = receipt_of(gateway, audit_id, key=key)
        assert refused.status == unknown.status == 404
        assert refused.json["code"] == unknown.json["code"] == "not_found"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param("?record=7", 404, id="no-such-number"),
        pytest.param("?record=99999999999", 400, id="no-number-at-all"),
        pytest.param("?record=-1", 400, id="negative"),
        pytest.param("?record=body", 400, id="no-kind"),
        pytest.param("?record=", 400, id="empty"),
        pytest.param("?record=%00", 400, id="nul"),
        pytest.param(f"?record={'1' * 5000}", 400, id="endless"),
    ],
)
def test_receipt_of_a_record_that_is_none_is_refused(gateway: Gateway, query: str, status: int) -> None:
    """What was asked for is named, never guessed."""
    audit_id = gateway.chat().headers["x-lukhas-audit-id"]
    assert receipt_of(gateway, audit_id, query).status == status


def test_receipt_of_an_id_of_another_form_is_a_400(gateway: Gateway) -> None:
    """Its form is checked before anything is looked up."""
    for audit_id in ("x", "key_01ARZ3NDEKTSV4RRFFQ69G5FAV", "aud_01arz3ndektsv4rrffq69g5fav", "'%20OR%201=1"):
        assert receipt_of(gateway, audit_id).json["code"] == "invalid_id"


def test_tiles_make_up_the_tree_of_the_checkpoint(gateway: Gateway) -> None:
    """A key of any tenant can recompute the root, now and when the log has grown."""
    fill(gateway, 300)
    older = sign(gateway)
    tiles = HttpTiles(gateway, gateway.key(tenant="stranger"))
    assert root_at(tiles, older.size) == older.root
    fill(gateway, older.size + 1)
    newer = sign(gateway)
    assert root_at(tiles, newer.size) == newer.root and root_at(tiles, older.size) == older.root


def test_partial_tile_of_any_width_is_the_full_ones_beginning(gateway: Gateway) -> None:
    """Whoever has an older checkpoint gets the tile that it needs."""
    fill(gateway, 300)
    tiles = HttpTiles(gateway, gateway.key())
    full = tiles.read(0, 0, 256)
    assert len(full) == 8192
    for width in (1, 17, 255):
        assert tiles.read(0, 0, width) == full[: 32 * width]
    assert len(tiles.read(0, 1, 40)) == 40 * 32


@pytest.mark.parametrize(
    "path",
    [
        *("tile/0/999", "tile/0/x999/999", "tile/1/000", "tile/7/000.p/1", "tile/63/000", "tile/0/000.p/256"),
        *("tile/0/000.p/0", "tile/0/0", "tile/0/000/", "tile/0/000/1", "tile/64/000", "tile/", "tile/x/000"),
        *("tile/0/%30%30", "tile/0/..%2f000", "tile/entries/999", "tile/0/%D9%A1%D9%A1%D9%A1"),
    ],
)
def test_tile_that_is_not_there_is_a_404(gateway: Gateway, path: str) -> None:
    """Past the end, or spelled in another way than the standard's."""
    fill(gateway, 300)
    answer = gateway.http("GET", f"{BASE}/{path}")
    assert answer.status == 404, answer.body
    assert answer.json["code"] == "not_found"


def test_entries_are_the_records_and_for_admins_only(serve: Serve) -> None:
    """Every tenant's records stand in them; where they were pruned, the answer says so."""
    gateway = serve()
    fill(gateway, 300)
    answer = gateway.http("GET", f"{BASE}/tile/entries/000")
    assert answer.status == 200 and "no-store" in answer.headers["cache-control"]
    left, records = answer.body, []
    while left:
        end = 2 + int.from_bytes(left[:2], "big")
        records.append(left[2:end])
        left = left[end:]
    hashes = gateway.http("GET", f"{BASE}/tile/0/000").body
    assert b"".join(leaf_hash(one) for one in records) == hashes
    few = gateway.http("GET", f"{BASE}/tile/entries/001.p/2").body
    assert [few[2 : 2 + int.from_bytes(few[:2], "big")]] == [gateway.runtime.audit.source.read(256, 1)[0][1]]
    for key in (gateway.key("audit"), gateway.key(tenant="acme")):
        assert gateway.http("GET", f"{BASE}/tile/entries/000", key=key).status == 403
    with gateway.runtime.database.writer.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit_record WHERE leaf_index = 3")
    gone = gateway.http("GET", f"{BASE}/tile/entries/000")
    assert gone.status == 404 and b"pruned" in gone.body
    assert gateway.http("GET", f"{BASE}/tile/0/000").body == hashes


def test_consistency_of_two_sizes_is_proved(gateway: Gateway) -> None:
    """Both roots and the hashes between them; without `to`, up to now."""
    fill(gateway, 300)
    newest = sign(gateway)
    key = gateway.key(tenant="stranger")
    for old in (0, 1, 255, 256, 299, newest.size):
        answer = gateway.http("GET", f"{BASE}/consistency?from={old}&to={newest.size}", key=key).json
        old_root, root = base64.b64decode(answer["from_root"]), base64.b64decode(answer["to_root"])
        assert (answer["from"], answer["to"], root) == (old, newest.size, newest.root)
        hashes = [base64.b64decode(one) for one in answer["hashes"]]
        assert verify_consistency(old, newest.size, old_root, root, hashes)
    assert gateway.http("GET", f"{BASE}/consistency?from=1", key=key).json["to"] >= newest.size


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?from=-1",
        "?from=x",
        "?from=2&to=1",
        "?from=1&to=9999999",
        "?from=1.5",
        f"?from={10**30}",
        "?to=3",
        "?from=",
    ],
)
def test_consistency_of_what_is_no_pair_of_sizes_is_a_400(gateway: Gateway, query: str) -> None:
    """Backwards, past the end, or no numbers."""
    answer = gateway.http("GET", f"{BASE}/consistency{query}")
    assert answer.status == 400, answer.body


@pytest.mark.parametrize(
    "path",
    [
        "checkpoint",
        "key",
        "consistency?from=0",
        "tile/0/000.p/1",
        "tile/entries/000",
        "aud_01ARZ3NDEKTSV4RRFFQ69G5FAV/proof",
    ],
)
def test_tree_is_for_keys_only(gateway: Gateway, path: str) -> None:
    """Not even hashes go to who has no key."""
    assert gateway.http("GET", f"{BASE}/{path}", key=None).status == 401
    assert gateway.http("GET", f"{BASE}/{path}", key="lk_wrong").status == 401


def test_checkpoint_where_none_was_signed_is_a_404(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says when there will be one."""
    monkeypatch.setattr(gateway.runtime.custody.checkpoints, "newest", lambda: None)
    answer = gateway.http("GET", f"{BASE}/checkpoint")
    assert answer.status == 404 and b"few seconds" in answer.body
