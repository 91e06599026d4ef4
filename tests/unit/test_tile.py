"""The paths of tiles, and which tiles a tree has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.audit.tile import TILE_WIDTH, TileName, entries_path, list_tiles, parse_tile_path, tile_path
from lukhas.errors import NotFound


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param(TileName(0, 0, 256), "tile/0/000", id="first"),
        pytest.param(TileName(0, 1_234_067, 256), "tile/0/x001/x234/067", id="of-the-standard"),
        pytest.param(TileName(1, 1_000, 17), "tile/1/x001/000.p/17", id="partial"),
        pytest.param(TileName(63, 999, 255), "tile/63/999.p/255", id="highest"),
        pytest.param(TileName(None, 273, 112), "tile/entries/273.p/112", id="entries"),
    ],
)
def test_path_of_a_tile_is_the_standards_and_reads_back(name: TileName, path: str) -> None:
    """C2SP's own example is among them."""
    made = entries_path(name.index, name.width) if name.level is None else tile_path(name.level, name.index, name.width)
    assert made == path and parse_tile_path(path) == name


@given(st.integers(0, 63), st.integers(0, 10**15), st.integers(1, 256))
def test_path_of_any_tile_reads_back(level: int, index: int, width: int) -> None:
    """Writing and reading agree."""
    assert parse_tile_path(tile_path(level, index, width)) == TileName(level, index, width)


@pytest.mark.parametrize(
    "path",
    [
        *("", "tile", "tile/0", "tile/0/", "/tile/0/000", "tile/0/000/", "tile/0/0", "tile/0/0000", "tile/00/000"),
        *("tile/64/000", "tile/100/000", "tile/-1/000", "tile/x/000", "tile/0/x000/000", "tile/0/001/000"),
        *("tile/0/x001", "tile/0/X001/000", "tile/0/x01/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01"),
        *("tile/0/000.p/999", "tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/1/", "tile/0/000.q/1", "tile/0/000\n"),
        *("tile/0/\u0661\u0661\u0661", "tile/0/../0/000", "tile/entries", "tile/Entries/000", "tile/0/" + "x999/" * 40),
        "tile/0/" + "x999/" * 7 + "999",
    ],
)
def test_path_of_another_form_is_none(path: str) -> None:
    """Each tile has exactly one path."""
    with pytest.raises(NotFound):
        parse_tile_path(path)


def test_tiles_of_seventy_thousand_are_those_of_the_standard() -> None:
    """273 full tiles and one of 112; one full and one of 17 above; one of 1 on top."""
    found = list(list_tiles(70_000))
    assert [one for one in found if one.width < TILE_WIDTH] == [
        TileName(0, 273, 112),
        TileName(1, 1, 17),
        TileName(2, 0, 1),
    ]
    assert len(found) == 273 + 1 + 1 + 1 + 1
    assert list(list_tiles(256)) == [TileName(0, 0, 256), TileName(1, 0, 1)]
    assert list(list_tiles(0)) == []


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_tiles_since_a_size_are_what_a_reader_of_it_lacks(one: int, other: int) -> None:
    """With the full tiles of the older tree they make up the newer tree's."""
    old, new = min(one, other), max(one, other)
    full = {tile for tile in list_tiles(old) if tile.width == TILE_WIDTH}
    assert set(list_tiles(new, start=old)) == set(list_tiles(new)) - full
