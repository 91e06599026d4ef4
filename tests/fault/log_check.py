"""Recomputes an audit log from its rows, without the code that writes it; compares it with what was acknowledged."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from lukhas.errors import StorageUnavailable
from lukhas.storage.engine import Database, open_database


@dataclass(frozen=True)
class Ack:
    """One acknowledged record; `place` is how long the trace was then."""

    audit_id: str
    index: int
    leaf: str
    place: int


def read_acks(path: Path, start: int = 0) -> tuple[list[Ack], int]:
    """Return the acknowledged records from a place in the file on, and where the file ends."""
    if not path.exists():
        return [], start
    raw = path.read_bytes()
    whole = raw[start : raw.rfind(b"\n") + 1]
    parts = [line.split() for line in whole.decode().splitlines()]
    return [Ack(one[0], int(one[1]), one[2], int(one[3])) for one in parts], start + len(whole)


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


@dataclass
class LogCheck:
    """Follows a log from its beginning; each `advance` takes in what was appended since."""

    leaves: list[bytes] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)

    def advance(self, path: Path, acks: list[Ack]) -> list[str]:
        """Read what is new, and return what is wrong; empty where all is well."""
        database = open_database(f"sqlite:///{path}")
        try:
            wrong = self._read(database)
            wrong += self._compare(database)
        except StorageUnavailable as failure:
            return [f"{failure} {failure.hint}"]
        finally:
            database.close()
        for ack in acks:
            if ack.index >= len(self.ids) or self.ids[ack.index] != ack.audit_id:
                wrong.append(f"acknowledged record {ack.audit_id} is not at its index {ack.index}")
            elif self.leaves[ack.index].hex() != ack.leaf:
                wrong.append(f"acknowledged record {ack.audit_id} has another hash")
        return wrong

    def _read(self, database: Database) -> list[str]:
        wrong: list[str] = []
        query = f"SELECT leaf_index, audit_id, leaf_hash, data FROM audit_record WHERE leaf_index >= {len(self.leaves)}"
        with database.reading() as connection:
            rows = connection.exec_driver_sql(f"{query} ORDER BY leaf_index").all()
        for index, audit_id, leaf, data in rows:
            record = json.loads(data)
            tree, key = record["tree"], record["key_id"]
            self.sequences[key] = self.sequences.get(key, 0) + 1
            before = self.leaves[-1].hex() if self.leaves else "0" * 64
            computed = sha256(b"\x00" + bytes(data)).digest()
            if index != len(self.leaves) or int(tree["index"]) != index:
                wrong.append(f"the record at place {len(self.leaves)} has index {index}")
            if int(tree["sequence"]) != self.sequences[key]:
                wrong.append(f"record {index} breaks the sequence of {key}")
            if tree["previous"] != before:
                wrong.append(f"record {index} does not name the one before it")
            if computed != bytes(leaf):
                wrong.append(f"record {index} has a wrong hash")
            if record["audit_id"] != audit_id:
                wrong.append(f"record {index} has another id than its row")
            self.leaves.append(computed)
            self.ids.append(audit_id)
        return wrong

    def _compare(self, database: Database) -> list[str]:
        wrong: list[str] = []
        problems = database.integrity_check()
        if problems:
            wrong.append(f"integrity_check: {problems[:3]}")
        with database.reading() as connection:
            size, frontier = connection.exec_driver_sql("SELECT size, frontier FROM audit_head").one()
            tiles = connection.exec_driver_sql("SELECT level, tile_index, hashes FROM audit_tile").all()
            kept = {row[0]: row[1] for row in connection.exec_driver_sql("SELECT key_id, sequence FROM audit_sequence")}
        if size != len(self.leaves):
            wrong.append(f"the head says {size} records, {len(self.leaves)} are there")
            return wrong
        levels = [self.leaves]
        while len(levels[-1]) >= 256:
            below = levels[-1]
            levels.append([_root(below[start : start + 256]) for start in range(0, len(below) - 255, 256)])
        peaks: list[bytes] = []
        start = 0
        for bit in range(size.bit_length() - 1, -1, -1):
            if size >> bit & 1:
                level, rest = divmod(bit, 8)
                peaks.append(_root(levels[level][start >> 8 * level : (start >> 8 * level) + (1 << rest)]))
                start += 1 << bit
        if b"".join(peaks) != bytes(frontier):
            wrong.append("the stored frontier is not the log's")
        found = {(level, place): bytes(hashes) for level, place, hashes in tiles}
        expected = {
            (level, place >> 8): b"".join(nodes[place : place + 256])
            for level, nodes in enumerate(levels)
            for place in range(0, len(nodes), 256)
            if level > 0 or place + 256 <= len(nodes)
        }
        if found != expected:
            odd = {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
            wrong.append(f"tiles are wrong, missing or too many: {sorted(odd)[:5]}")
        if {key: number for key, number in kept.items() if number} != self.sequences:
            wrong.append("the stored sequences are not those of the records")
        return wrong


def _root(nodes: list[bytes]) -> bytes:
    while len(nodes) > 1:
        nodes = [_node(nodes[place], nodes[place + 1]) for place in range(0, len(nodes), 2)]
    return nodes[0]
