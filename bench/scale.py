"""How long to measure."""

import msgspec


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of samples."""

    rounds: int = 3
    rings: int = 100
    arq_rings: int = 20
    arq_jobs: int = 500
    key_operations: int = 6_000
    jobs: int = 60
    load_s: float = 4.0
    idle_s: float = 12.0
    pictures: int = 16
    large_megapixels: int = 12
    left_out: frozenset[str] = frozenset()


FULL = Scale()
QUICK = Scale(
    rounds=1,
    rings=50,
    arq_rings=10,
    arq_jobs=200,
    key_operations=2_000,
    jobs=20,
    load_s=2.0,
    pictures=4,
    left_out=frozenset({"counted", "large"}),
)
