"""Random changes to a log are found and the first wrong record named; the long form is audit_tamper.py."""

from __future__ import annotations

import random
from pathlib import Path

import audit_tamper
import stored_tampering
import tampering


def test_export_changed_at_random_is_found_and_its_first_wrong_record_named(tmp_path: Path) -> None:
    """Whatever is done to a file, the record that is named is the first line that is another."""
    tally = audit_tamper.Tally()
    audit_tamper.run_file(tally, tmp_path, random.Random(5), 5 * len(tampering.KINDS), 60)
    assert tally.missed == [] and tally.found.total() == 5 * len(tampering.KINDS)


def test_database_changed_at_random_is_found_and_its_first_wrong_record_named(tmp_path: Path) -> None:
    """The same in the tables, where hashes, tiles and head can be changed along."""
    tally = audit_tamper.Tally()
    audit_tamper.run_database(tally, tmp_path, random.Random(6), 2 * len(stored_tampering.KINDS), 280)
    assert tally.missed == [] and tally.found.total() == 2 * len(stored_tampering.KINDS)
