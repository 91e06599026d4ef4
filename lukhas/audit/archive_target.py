"""Where archives are kept: a folder or a bucket, for files of any size."""

from __future__ import annotations

import os
import secrets
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from lukhas.audit.ship_s3 import S3Target
from lukhas.audit.ship_target import open_target
from lukhas.errors import ConfigurationError, StorageUnavailable


class ArchiveTarget(Protocol):
    """Keeps named files. Its methods block."""

    def put_file(self, name: str, source: Path) -> None:
        """Store a file durably under a name, whole or not at all, in place of what was there.

        Raises:
            StorageUnavailable: it could not be stored.
        """
        ...

    def get_file(self, name: str, into: Path) -> bool:
        """Copy the file of a name to a path, and say whether there was one.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        ...


def open_archive(url: str) -> ArchiveTarget:
    """Return the target that an URL names; it is first asked when it is used.

    Args:
        url: `file:///folder`, or `s3://bucket/prefix`, whose credentials and endpoint come from the AWS_* environment.

    Raises:
        ConfigurationError: the URL names none, or what it needs is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc and not (parts.query or parts.fragment or "@" in parts.netloc):
        return BucketArchive(parts.netloc, unquote(parts.path).strip("/"))
    try:
        open_target(url)
    except ConfigurationError as wrong:
        raise ConfigurationError(wrong.message, hint=wrong.hint, param="LUKHAS_AUDIT_ARCHIVE") from None
    return FolderArchive(Path(unquote(parts.path)))


class FolderArchive:
    """A folder: another disk, or a mount of another machine. A file is written beside its place, synced, renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return self._root.as_uri()

    def put_file(self, name: str, source: Path) -> None:
        """Store a file; the folder is made where it is missing."""
        draft = self._root / f".{name}.{secrets.token_hex(8)}"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with source.open("rb") as given, _create(draft) as file:
                    shutil.copyfileobj(given, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(self._root / name)
            except OSError:
                draft.unlink(missing_ok=True)
                raise
            handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as failure:
            raise StorageUnavailable(f"The archive {self} cannot be written: {failure.strerror}.") from failure

    def get_file(self, name: str, into: Path) -> bool:
        """Copy a file out."""
        try:
            shutil.copyfile(self._root / name, into)
        except FileNotFoundError:
            return False
        except OSError as failure:
            raise StorageUnavailable(f"The archive {self} cannot be read: {failure.strerror}.") from failure
        return True


class BucketArchive(S3Target):
    """A prefix in a bucket; large files go up in parts."""

    def put_file(self, name: str, source: Path) -> None:
        """Store a file."""
        failures: Any = (*self._failures, import_module("boto3.exceptions").Boto3Error)
        try:
            self._client.upload_file(str(source), self._bucket, self._prefix + name)
        except failures as failure:
            raise StorageUnavailable(f"The archive {self} cannot be written.", hint=f"It says: {failure}.") from failure

    def get_file(self, name: str, into: Path) -> bool:
        """Copy an object out."""
        try:
            self._client.download_file(self._bucket, self._prefix + name, str(into))
        except self._client_error as failure:
            if str(failure.response.get("Error", {}).get("Code", "")) in ("404", "NoSuchKey", "NotFound"):
                return False
            raise StorageUnavailable(f"The archive {self} cannot be read.", hint=f"It says: {failure}.") from failure
        except self._failures as failure:
            raise StorageUnavailable(f"The archive {self} cannot be read.", hint=f"It says: {failure}.") from failure
        return True


def _create(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
