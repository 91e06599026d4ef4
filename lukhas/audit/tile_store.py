"""The tiles of the log as its tables hold them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from lukhas.audit import statement
from lukhas.audit.merkle import HASH_BYTES
from lukhas.audit.tile import TILE_WIDTH
from lukhas.errors import IntegrityError
from lukhas.storage.engine import Database

_KEPT_TILES: Final = 256  # 8 kB each


class DatabaseTiles:
    """Reads tiles of the committed log, full ones from memory where they were read before. Safe in any thread.

    Level 0 is stored when its 256 leaf hashes are there; those of the open tile stand with its records. The tiles stay
    where records were pruned.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # Full tiles never change, so that what is kept never grows old.
        self._read_full: Callable[[int, int], bytes] = lru_cache(_KEPT_TILES)(self._load_full)

    def read(self, level: int, index: int, width: int) -> bytes:
        """Return the first `width` hashes of a tile, 32 bytes each.

        Raises:
            IntegrityError: they are not all there.
            StorageUnavailable: the database cannot be read.
        """
        if not 0 < width <= TILE_WIDTH or level < 0 or index < 0:
            raise IntegrityError(f"There is no tile {index} of level {level} with {width} hashes.")
        if width == TILE_WIDTH:
            return self._read_full(level, index)
        return self._load(level, index, width)

    def _load_full(self, level: int, index: int) -> bytes:
        return self._load(level, index, TILE_WIDTH)

    def _load(self, level: int, index: int, width: int) -> bytes:
        with self._database.reading() as connection:
            hashes = statement.read_tile(connection, level, index)
            if hashes is None and level == 0 and width < TILE_WIDTH:
                start = index * TILE_WIDTH
                hashes = b"".join(statement.read_leaves(connection, start, start + width))
        if hashes is None or len(hashes) < width * HASH_BYTES or len(hashes) % HASH_BYTES:
            raise IntegrityError(
                f"The audit log's tile {index} of level {level} is not whole.", hint="Run: lukhas audit verify"
            )
        return hashes[: width * HASH_BYTES]
