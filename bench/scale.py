"""How long to measure."""

import msgspec


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of samples."""

    rounds: int = 3
    rings: int = 100
    arq_rings: int = 20
    arq_jobs: int = 500
    key_operations: int = 6_000
    admissions: int = 2_000
    jobs: int = 60
    failovers: int = 120
    relayed: int = 2_000
    relayed_px: int = 400
    hold_s: float = 30.0
    spread_s: float = 30.0
    beside_s: float = 6.0
    load_s: float = 4.0
    idle_s: float = 12.0
    pictures: int = 16
    pictured_px: int = 256
    pairs: int = 12
    """How often the whole guarantee stands beside what goes without it; half as often for pictures and for parts."""
    pair_s: float = 2.5
    upscales: int = 6
    upscaled_px: int = 512
    has_parts: bool = True
    large_megapixels: int = 12
    left_out: frozenset[str] = frozenset()


FULL = Scale()
QUICK = Scale(
    rounds=1,
    rings=50,
    arq_rings=10,
    arq_jobs=200,
    key_operations=2_000,
    admissions=200,
    jobs=5,
    failovers=5,
    relayed=100,
    relayed_px=64,
    hold_s=3.0,
    spread_s=3.0,
    beside_s=2.0,
    load_s=1.0,
    pictures=2,
    pictured_px=128,
    pairs=1,
    pair_s=1.0,
    upscales=4,
    has_parts=False,
    left_out=frozenset({"counted", "large", "many", "guarantee"}),
)
