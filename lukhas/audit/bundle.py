"""Entry bundles: the records under one tile of level 0, each behind its length.

Source: C2SP tlog-tiles, https://c2sp.org/tlog-tiles, "Log entries".
"""

from __future__ import annotations

from lukhas.audit.source import RecordSource
from lukhas.audit.tile import TILE_WIDTH
from lukhas.errors import NotFound


def read_bundle(source: RecordSource, index: int, width: int) -> bytes:
    """Return the first `width` records under a tile, each after its length as two big-endian bytes.

    Raises:
        NotFound: one of them is not in the database, such as a pruned one.
        StorageUnavailable: the database cannot be read.
    """
    start = index * TILE_WIDTH
    found = [data for place, data in source.read(start, width) if place < start + width]
    if len(found) < width:
        raise NotFound(
            f"The records {start} to {start + width - 1} are not all in the database.",
            hint="Where they were pruned, they stand in their month's archive; their tile of hashes stays.",
        )
    return b"".join(len(data).to_bytes(2, "big") + data for data in found)
