"""The lock that keeps a second serving process off a data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from lukhas.errors import ConfigurationError
from lukhas.storage.serving import ServingLock


def test_lock_taken_twice_names_the_holder(tmp_path: Path) -> None:
    """Whoever comes second is told which process serves, and what to do."""
    first, second = ServingLock(tmp_path), ServingLock(tmp_path)
    first.acquire()
    with pytest.raises(ConfigurationError, match=r"process \d+") as refused:
        second.acquire()
    assert "LUKHAS_DATA_DIR" in refused.value.hint
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_lock_in_an_unusable_directory_is_a_clear_error(tmp_path: Path) -> None:
    """A file where the data directory should be is a mistake of the settings, not a crash."""
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        ServingLock(tmp_path / "data" / "deeper").acquire()
