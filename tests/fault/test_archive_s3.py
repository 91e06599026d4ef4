"""Archives in a real S3 server: files larger than one part, and what a missing bucket says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import BUCKET, ObjectStore, run_object_store

from lukhas.audit.archive_target import open_archive
from lukhas.errors import ConfigurationError, StorageUnavailable


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with run_object_store(tmp_path / "s3") as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.mark.requires("rclone")
def test_archive_s3_gives_back_what_was_put(store: ObjectStore, tmp_path: Path) -> None:
    """A file that goes up in several parts comes back byte for byte; what is not there is said so."""
    target = open_archive(f"s3://{BUCKET}/logs/one")
    source, copy = tmp_path / "source", tmp_path / "copy"
    for content in (b"small", os.urandom(1 << 20) * 20):
        source.write_bytes(content)
        target.put_file("audit-2026-05.jsonl.gz", source)
        assert target.get_file("audit-2026-05.jsonl.gz", copy)
        assert copy.read_bytes() == content
    assert not target.get_file("audit-2026-06.jsonl.gz", copy)


@pytest.mark.requires("rclone")
def test_archive_s3_without_the_bucket_fails_clearly(store: ObjectStore, tmp_path: Path) -> None:
    """The error names the place."""
    target = open_archive("s3://not-there/x")
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100)
    with pytest.raises(StorageUnavailable, match="s3://not-there/x"):
        target.put_file("a", source)


@pytest.mark.parametrize("url", ["", "ftp://x/y", "file://host/x", "file:relative", "s3://", "s3://key@bucket/x"])
def test_open_archive_of_no_place_names_the_setting(url: str) -> None:
    """A wrong URL is the operator's, under the name that it was set by."""
    with pytest.raises(ConfigurationError) as caught:
        open_archive(url)
    assert caught.value.param == "LUKHAS_AUDIT_ARCHIVE"
