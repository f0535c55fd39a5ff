"""The pencil filter: a drawing of the same size, without seams, from shared memory to shared memory."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from providers.base import Pixels, Task
from providers.failures import FailureKind, ProviderFailure
from tests.pictures import in_memory, photo
from tests.reporters import Unheard, pixels_of
from workers.models import restyle
from workers.models.frames import destroy, frame
from workers.models.restyle import Pencil


@pytest_asyncio.fixture
async def pencil() -> AsyncIterator[Pencil]:
    """Lend a warm provider."""
    provider = Pencil()
    await provider.warm()
    yield provider
    await provider.aclose()


def task(picture: Pixels, **parameters: str | int) -> Task:
    """Ask for a drawing."""
    return Task(attempt="a1", operation="restyle", parameters=parameters, pictures=(picture,), deadline_s=30)


async def draw(provider: Pencil, picture: NDArray[np.uint8], **parameters: str | int) -> NDArray[np.int16]:
    """Draw an array."""
    given = in_memory(picture)
    result = await provider.submit(task(given, filter="pencil", **parameters), Unheard())
    pixels = pixels_of(result)
    made = frame(pixels).astype(np.int16)
    destroy(pixels)
    destroy(given)
    return made


async def test_a_drawing_is_grey_and_has_dark_lines_on_light_paper(pencil: Pencil) -> None:
    """m2r-1: colours go, edges stay."""
    picture = np.full((80, 120, 3), (90, 160, 200), np.uint8)
    picture[:, 60:] = (20, 30, 40)
    made = await draw(pencil, picture)
    assert made.shape == picture.shape
    assert (np.ptp(made, axis=2) == 0).all()
    flat, edge = made[:, 5:40].mean(), made[:, 60:63].mean()
    assert flat > 200
    assert edge < flat - 100


async def test_tiles_leave_no_seam(pencil: Pencil, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawing does not depend on how the picture was cut."""
    picture = photo(300, 280)
    whole = await draw(pencil, picture)
    monkeypatch.setattr(restyle, "TILE_PX", 64)
    assert np.abs(await draw(pencil, picture) - whole).max() <= 1


async def test_strength_darkens(pencil: Pencil) -> None:
    """More strength, less paper."""
    picture = photo(64, 64)
    means = [(await draw(pencil, picture, strength=strength)).mean() for strength in (1, 50, 100)]
    assert means[0] > means[1] > means[2]
    assert (await draw(pencil, picture) == await draw(pencil, picture, strength=50)).all()


async def test_alpha_is_kept(pencil: Pencil) -> None:
    """Transparency is no colour."""
    picture = photo(31, 17, channels=4)
    assert ((await draw(pencil, picture))[..., 3] == picture[..., 3]).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 700), (545, 3)])
async def test_size_is_kept(pencil: Pencil, width: int, height: int) -> None:
    """A single pixel and thin pictures are pictures too."""
    assert (await draw(pencil, photo(width, height))).shape == (height, width, 3)


@pytest.mark.parametrize("parameters", [{}, {"filter": "oil"}, {"filter": "pencil", "strength": 0}])
async def test_unknown_filters_and_strengths_are_refused(pencil: Pencil, parameters: dict[str, str | int]) -> None:
    """Only what is documented is drawn."""
    with pytest.raises(ProviderFailure) as caught:
        await pencil.submit(task(in_memory(photo(4, 4)), **parameters), Unheard())
    assert caught.value.kind is FailureKind.INVALID_INPUT


async def test_the_loop_goes_on_meanwhile(pencil: Pencil) -> None:
    """No tile, whole as these two are, holds the event loop for long, so that leases are renewed in time."""
    running = asyncio.create_task(pencil.submit(task(in_memory(photo(1024, 512)), filter="pencil"), Unheard()))
    loop = asyncio.get_running_loop()
    gaps_s: list[float] = []
    while not running.done():
        before = loop.time()
        await asyncio.sleep(0.001)
        gaps_s.append(loop.time() - before)
    destroy(pixels_of(running.result()))
    assert max(gaps_s) < 0.25


async def test_the_estimate_is_the_measured_rate(pencil: Pencil) -> None:
    """One megapixel costs what the speed says."""
    expected = pencil.estimate({"filter": "pencil"}, width=1000, height=1000)
    assert expected.output_pixels == 1_000_000
    assert expected.model_s == pytest.approx(pencil.speed()["pencil"])
