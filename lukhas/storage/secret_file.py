"""Small secret files: readable by their owner only, complete or absent, durable."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def create_secret_file(path: Path, text: str) -> bool:
    """Create a 0600 file with this text, unless it is there already.

    Returns:
        Whether this call made it. Of several processes that try at once, one does.
    """
    draft = _write_draft(path, text)
    try:
        # A link fails where the name is taken, a rename would silently replace another process's secret.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    return True


def replace_secret_file(path: Path, text: str) -> None:
    """Write a 0600 file with this text, in place of whatever was there."""
    draft = _write_draft(path, text)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write_draft(path: Path, text: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
