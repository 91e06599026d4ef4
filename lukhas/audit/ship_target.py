"""Where checkpoints and tiles are shipped to: a folder or a bucket, outside the box."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from lukhas.errors import ConfigurationError, IntegrityError

LARGEST_BYTES: Final = 1_000_000
"""More than any object that is shipped has; a target that answers with more is cut off."""


class ShipTarget(Protocol):
    """Keeps named bytes. Its methods block for a bounded time, and raise StorageUnavailable where they cannot."""

    def put(self, path: str, data: bytes, immutable: bool) -> None:
        """Store bytes durably under a path, whole or not at all.

        Args:
            path: relative, parts divided by '/'.
            data: at most LARGEST_BYTES.
            immutable: what is there already must be the same.

        Raises:
            IntegrityError: something else is there, and it is immutable.
            StorageUnavailable: they could not be stored.
        """
        ...

    def get(self, path: str) -> bytes | None:
        """Return the bytes under a path; None where there are none.

        Raises:
            StorageUnavailable: they cannot be read.
        """
        ...


def open_target(url: str) -> ShipTarget:
    """Return the target that an URL names; it is first asked when it is used.

    Args:
        url: `file:///folder`, or `s3://bucket/prefix`, whose credentials and endpoint come from the AWS_* environment.

    Raises:
        ConfigurationError: the URL names none, or what it needs is not installed. Never shows the URL's credentials.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/") and not parts.query:
        from lukhas.audit.ship_file import FileTarget

        return FileTarget(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc and not (parts.query or parts.fragment or "@" in parts.netloc):
        from lukhas.audit.ship_s3 import S3Target

        return S3Target(parts.netloc, unquote(parts.path).strip("/"))
    raise ConfigurationError(
        "This is no place to ship to.",
        hint="Use file:///folder or s3://bucket/prefix; S3 credentials go into AWS_ACCESS_KEY_ID and its like.",
        param="LUKHAS_AUDIT_SHIP",
    )


def refuse_other(target: object, path: str) -> IntegrityError:
    """Return the error for a path under which something else stands than what belongs there."""
    return IntegrityError(
        f"{target} holds something else under {path} than this log has there; it was not overwritten.",
        hint="Two logs share one place, or one of the two was changed: keep both, and run lukhas audit verify.",
    )
