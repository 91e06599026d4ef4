"""Tiles: 256 hashes of one height of the tree side by side, and the paths that they are served at.

A tile of level 0 holds leaf hashes; one of level L + 1 holds the roots of 256 full tiles of level L. All nodes between
are hashed anew from them.

Source: C2SP tlog-tiles, https://c2sp.org/tlog-tiles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from lukhas.audit.merkle import HASH_BYTES
from lukhas.errors import NotFound

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
LARGEST_LEVEL: Final = 63
_MOST_GROUPS: Final = 7  # more than any index of 63 bits has
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class TileName:
    """Which tile: its level (None: the records themselves), its index within the level, and how many hashes."""

    level: int | None
    index: int
    width: int


class TileReader(Protocol):
    """Gives tiles of one log."""

    def read(self, level: int, index: int, width: int) -> bytes:
        """Return the first `width` hashes of a tile, 32 bytes each.

        Raises:
            IntegrityError: they are not all there.
        """
        ...


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a tile: `tile/0/x001/234`, with `.p/17` behind it when it is partial."""
    return f"tile/{level}/{_format_index(index)}{_format_width(width)}"


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of the records under a tile of level 0."""
    return f"tile/entries/{_format_index(index)}{_format_width(width)}"


def parse_tile_path(path: str) -> TileName:
    """Read a path that `tile_path` or `entries_path` makes; no other spelling of one is taken.

    Raises:
        NotFound: it is no tile's path.
    """
    wrong = NotFound("This is no path of a tile.", hint="A path reads tile/<level>/<index>, such as tile/0/x001/234.")
    found = _PATH.fullmatch(path) if len(path) <= 80 else None
    if found is None:
        raise wrong
    groups = found["index"].replace("x", "").split("/")
    width = int(found["width"] or TILE_WIDTH)
    level = None if found["level"] == "entries" else int(found["level"])
    is_short = len(groups) == 1 or groups[0] != "000"  # leading groups of zeros would name a tile twice
    is_partial_full = found["width"] is not None and width >= TILE_WIDTH
    if not is_short or len(groups) > _MOST_GROUPS or is_partial_full or (level or 0) > LARGEST_LEVEL:
        raise wrong
    return TileName(level, int("".join(groups)), width)


def list_tiles(size: int, *, start: int = 0) -> Iterator[TileName]:
    """Yield every tile of hashes of a tree, level by level; the last of a level may be partial.

    Args:
        size: leaves in the tree.
        start: leaves that a reader has all full tiles of; those are left out.
    """
    level, hashes, known = 0, size, start
    while hashes:
        for index in range(known // TILE_WIDTH, hashes // TILE_WIDTH):
            yield TileName(level, index, TILE_WIDTH)
        if hashes % TILE_WIDTH:
            yield TileName(level, hashes // TILE_WIDTH, hashes % TILE_WIDTH)
        hashes //= TILE_WIDTH
        known //= TILE_WIDTH
        level += 1


def split_hashes(packed: bytes) -> list[bytes]:
    """Return a tile's hashes one by one."""
    return [packed[start : start + HASH_BYTES] for start in range(0, len(packed), HASH_BYTES)]


def _format_index(index: int) -> str:
    path = f"{index % 1000:03d}"
    while index >= 1000:
        index //= 1000
        path = f"x{index % 1000:03d}/{path}"
    return path


def _format_width(width: int) -> str:
    return "" if width == TILE_WIDTH else f".p/{width}"
