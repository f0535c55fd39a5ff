"""Tiles cover a picture once, and see far enough around themselves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.models.tiles import Box, cuts, plan

sides = st.integers(1, 700)


@given(width=sides, height=sides, tile_px=st.integers(8, 200), pad_px=st.integers(0, 20))
def test_every_pixel_is_kept_once(width: int, height: int, tile_px: int, pad_px: int) -> None:
    """The cores of a plan cover the picture without gap or overlap."""
    painted = np.zeros((height, width), np.uint8)
    for tile in plan(width, height, tile_px=tile_px, pad_px=pad_px):
        painted[tile.core.slices] += 1
    assert (painted == 1).all()


@given(width=sides, height=sides, tile_px=st.integers(8, 200), pad_px=st.integers(0, 20))
def test_a_tile_sees_its_surroundings(width: int, height: int, tile_px: int, pad_px: int) -> None:
    """A source reaches the whole overlap beyond its core, unless the picture ends before."""
    for tile in plan(width, height, tile_px=tile_px, pad_px=pad_px):
        assert tile.source.left == max(0, tile.core.left - pad_px)
        assert tile.source.top == max(0, tile.core.top - pad_px)
        assert tile.source.right == min(width, tile.core.right + pad_px)
        assert tile.source.bottom == min(height, tile.core.bottom + pad_px)


@given(length_px=st.integers(1, 5000), tile_px=st.integers(8, 200), pad_px=st.integers(0, 20))
def test_parts_are_even_and_bounded(length_px: int, tile_px: int, pad_px: int) -> None:
    """Parts differ by one pixel at most, and a source is never wider than a padded tile: memory is bounded."""
    parts = np.diff(cuts(length_px, tile_px=tile_px, pad_px=pad_px))
    assert parts.max() - parts.min() <= 1
    assert len(parts) == 1 or parts.max() <= tile_px
    assert all(tile.source.width <= tile_px + 2 * pad_px for tile in plan(length_px, 1, tile_px=tile_px, pad_px=pad_px))


def test_what_fits_one_padded_tile_stays_whole() -> None:
    """A picture is not cut where one tile with its overlap would hold it; one pixel more is."""
    assert len(plan(156, 156, tile_px=128, pad_px=14)) == 1
    assert len(plan(157, 156, tile_px=128, pad_px=14)) == 2


def test_crop_counts_from_the_source() -> None:
    """The core's place in the model's answer is its place in the source, scaled."""
    second = plan(300, 10, tile_px=128, pad_px=14)[1]
    assert second.core == Box(left=100, top=0, right=200, bottom=10)
    assert second.crop == Box(left=14, top=0, right=114, bottom=10)
    assert second.crop.scaled(3) == Box(left=42, top=0, right=342, bottom=30)
