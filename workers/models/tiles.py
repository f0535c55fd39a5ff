"""
Cuts a picture into tiles and says where each belongs; pure.

A tile is computed from `source`, which reaches `pad_px` beyond its `core` on every side that is not the picture's own
edge, and only the core is kept: what the model makes of an artificial edge is thrown away.
"""

from itertools import pairwise

import msgspec


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A rectangle of pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    def scaled(self, scale: int) -> "Box":
        """Return the same rectangle in a picture `scale` times as large."""
        return Box(left=self.left * scale, top=self.top * scale, right=self.right * scale, bottom=self.bottom * scale)

    def within(self, outer: "Box") -> "Box":
        """Return this rectangle counted from the corner of another."""
        return Box(
            left=self.left - outer.left,
            top=self.top - outer.top,
            right=self.right - outer.left,
            bottom=self.bottom - outer.top,
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, as an array wants them."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """One step: read `source`, keep `core`."""

    source: Box
    core: Box

    @property
    def crop(self) -> Box:
        """The core, counted from the corner of the source."""
        return self.core.within(self.source)


def cuts(length_px: int, *, tile_px: int, pad_px: int) -> list[int]:
    """Return the edges of even parts, none longer than a tile; what fits one padded tile stays whole."""
    parts = 1 if length_px <= tile_px + 2 * pad_px else -(-length_px // tile_px)
    return [length_px * part // parts for part in range(parts + 1)]


def plan(width: int, height: int, *, tile_px: int, pad_px: int) -> list[Tile]:
    """Cover a picture with tiles, row by row."""
    columns = cuts(width, tile_px=tile_px, pad_px=pad_px)
    rows = cuts(height, tile_px=tile_px, pad_px=pad_px)
    return [
        Tile(
            core=Box(left=left, top=top, right=right, bottom=bottom),
            source=Box(
                left=max(0, left - pad_px),
                top=max(0, top - pad_px),
                right=min(width, right + pad_px),
                bottom=min(height, bottom + pad_px),
            ),
        )
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
