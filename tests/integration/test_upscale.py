"""The upscaler on the real weights: the model's own answer, without seams, within its memory."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from PIL import Image

from broker.wheels import MODEL_DIGESTS
from providers.base import Pixels, Task
from providers.failures import FailureKind, ProviderFailure
from tests.pictures import in_memory, photo
from tests.reporters import Heard, Unheard, pixels_of
from workers.models.frames import destroy, frame
from workers.models.network import ncnn
from workers.models.upscale import Upscale
from workers.models.weights import faults

ROOT = Path(__file__).parents[2]
MODELS_DIR = ROOT / ".lethe" / "data" / "models"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upscale() -> AsyncIterator[Upscale]:
    """One warm provider for all tests of this module."""
    provider = Upscale(MODELS_DIR)
    await provider.warm()
    yield provider
    await provider.aclose()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def task(picture: Pixels, **parameters: str | int) -> Task:
    """Ask for an upscale."""
    return Task(attempt="a1", operation="upscale", parameters=parameters, pictures=(picture,), deadline_s=120)


async def run(provider: Upscale, picture: NDArray[np.uint8], **parameters: str | int) -> NDArray[np.uint8]:
    """Upscale an array."""
    given = in_memory(picture)
    result = await provider.submit(task(given, **parameters), Unheard())
    pixels = pixels_of(result)
    made = frame(pixels).copy()
    destroy(pixels)
    destroy(given)
    return made


def bare(model: str, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Run the whole picture at once through ncnn on default options."""
    net = ncnn.Net()
    assert net.load_param(str(MODELS_DIR / f"{model}.param")) == 0
    assert net.load_model(str(MODELS_DIR / f"{model}.bin")) == 0
    height, width, _ = picture.shape
    given = ncnn.Mat.from_pixels(picture, ncnn.Mat.PixelType.PIXEL_RGB, width, height)
    given.substract_mean_normalize([], [1 / 255] * 3)
    extractor = net.create_extractor()
    extractor.input("data", given)
    _, made = extractor.extract("output")
    return (made.numpy() * 255 + 0.5).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Tell how far two pictures are apart, channel by channel."""
    return np.abs(one.astype(np.int16) - other.astype(np.int16))


@pytest.mark.parametrize("scale", [2, 3, 4])
async def test_tiled_output_is_the_bare_model_s(upscale: Upscale, scale: int) -> None:
    """Four tiles stitched equal the whole picture at once, within one step per channel, seams included."""
    picture = photo(201, 190)
    made = await run(upscale, picture, scale=scale)
    assert difference(made, bare(f"realesr-animevideov3-x{scale}", picture)).max() <= 1


async def test_seams_do_not_show_on_noise(upscale: Upscale) -> None:
    """The overlap is wide enough for the hardest picture there is."""
    noise = np.random.default_rng(3).integers(0, 256, (170, 180, 3), dtype=np.uint8)
    made = await run(upscale, noise, scale=2)
    assert difference(made, bare("realesr-animevideov3-x2", noise)).max() <= 1


async def test_best_is_the_bare_model_s(upscale: Upscale) -> None:
    """The better model's own answer comes through unchanged at its own scale."""
    picture = photo(33, 21)
    made = await run(upscale, picture, scale=4, quality="best")
    assert difference(made, bare("realesrgan-x4plus", picture)).max() <= 1


@pytest.mark.parametrize("scale", [2, 3])
async def test_best_is_reduced_in_place(upscale: Upscale, scale: int) -> None:
    """Smaller scales are the better model's answer made smaller, not shifted, also across tiles."""
    picture = photo(100, 20)
    larger = Image.fromarray(await run(upscale, picture, scale=4, quality="best"))
    reduced = np.asarray(larger.resize((100 * scale, 20 * scale), Image.Resampling.LANCZOS))
    made = await run(upscale, picture, scale=scale, quality="best")
    seam = difference(made, reduced)[:, 50 * scale - 8 : 50 * scale + 8]
    assert difference(made, reduced)[:, : 40 * scale].max() <= 1
    assert seam.mean() < 1


@pytest.mark.parametrize("resampling", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("quality", ["fast", "best"])
async def test_output_is_no_interpolation(upscale: Upscale, quality: str, resampling: Image.Resampling) -> None:
    """What comes back is the model's work: far from what resampling makes."""
    picture = photo(48, 48)
    made = await run(upscale, picture, scale=4, quality=quality)
    resampled = np.asarray(Image.fromarray(picture).resize((192, 192), resampling))
    assert difference(made, resampled).mean() > 3


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (127, 129), (130, 7), (3, 157)])
async def test_size_is_exact(upscale: Upscale, scale: int, width: int, height: int) -> None:
    """Odd sizes, thin ones and a single pixel come out exactly `scale` times as large."""
    made = await run(upscale, photo(width, height), scale=scale)
    assert made.shape == (height * scale, width * scale, 3)
    assert made.any()


async def test_alpha_is_scaled_beside_the_colours(upscale: Upscale) -> None:
    """Colours are those of the picture without alpha; alpha is interpolated and has no seam."""
    picture = photo(170, 40, channels=4)
    made = await run(upscale, picture, scale=2)
    plain = await run(upscale, np.ascontiguousarray(picture[..., :3]), scale=2)
    alpha = Image.fromarray(np.ascontiguousarray(picture[..., 3])).resize((340, 80), Image.Resampling.LANCZOS)
    assert (made[..., :3] == plain).all()
    assert difference(made[..., 3], np.asarray(alpha)).max() <= 1


async def test_progress_rises_tile_by_tile(upscale: Upscale) -> None:
    """Each tile is told once, and the last one is 1.0."""
    heard = Heard()
    given = in_memory(photo(300, 200))
    destroy(pixels_of(await upscale.submit(task(given), heard)))
    assert heard.shares == [pytest.approx(done / 6) for done in range(1, 7)]


async def test_the_loop_goes_on_meanwhile(upscale: Upscale) -> None:
    """A running model never blocks the event loop for as long as one tile takes."""
    given = in_memory(photo(256, 256))
    running = asyncio.create_task(upscale.submit(task(given), Unheard()))
    ticks = 0
    while not running.done():
        await asyncio.sleep(0.002)
        ticks += 1
    destroy(pixels_of(running.result()))
    assert ticks > 4 * 2


async def test_cancel_stops_within_a_tile_and_leaves_nothing(upscale: Upscale) -> None:
    """A cancelled run paints no further tile, re-raises, and gives its descriptors back."""
    given = in_memory(photo(400, 400))
    before = _descriptors()
    second = asyncio.Event()

    class Second(Heard):
        async def progressed(self, share: float) -> None:
            await super().progressed(share)
            if len(self.shares) == 2:
                second.set()

    heard = Second()
    running = asyncio.create_task(upscale.submit(task(given), heard))
    await second.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    del running
    assert len(heard.shares) == 2
    assert _descriptors() == before
    assert "memfd:pixels" not in "".join(line for line in _maps() if "(deleted)" in line)


def _descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def _maps() -> list[str]:
    return Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()


async def test_the_deadline_ends_a_run(upscale: Upscale) -> None:
    """A task that outlives its deadline fails with `timeout`."""
    with pytest.raises(ProviderFailure) as caught:
        await upscale.submit(msgspec.structs.replace(task(in_memory(photo(400, 400))), deadline_s=0.05), Unheard())
    assert caught.value.kind is FailureKind.TIMEOUT


async def test_speed_and_estimate_come_from_this_machine(upscale: Upscale) -> None:
    """Every variant has a measured rate, the better model's far above the fast ones'."""
    speed = upscale.speed()
    assert set(speed) == {"fast-2", "fast-3", "fast-4", "best"}
    assert speed["best"] > 5 * speed["fast-2"] > 0
    expected = upscale.estimate({"scale": 3}, width=1000, height=500)
    assert expected.output_pixels == 4_500_000
    assert expected.model_s == pytest.approx(speed["fast-3"] / 2)


@pytest.mark.parametrize("name", ["realesr-animevideov3-x3.bin", "realesrgan-x4plus.param"])
async def test_truncated_weights_fail_the_start(tmp_path: Path, name: str) -> None:
    """A file that lacks its last byte is named, with what to do."""
    for file in MODELS_DIR.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / name).unlink()
    shutil.copyfile(MODELS_DIR / name, tmp_path / name)
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size - 1)
    with pytest.raises(ProviderFailure, match=rf"{name} is truncated .*make data"):
        await Upscale(tmp_path).warm()
    assert len(faults(tmp_path)) == 1


async def test_missing_and_altered_weights_are_named(tmp_path: Path) -> None:
    """Each file is checked for itself: absent ones and one flipped byte."""
    assert len(faults(tmp_path)) == len(MODEL_DIGESTS)
    altered = bytearray((MODELS_DIR / "realesr-animevideov3-x2.bin").read_bytes())
    altered[1000] ^= 1
    (tmp_path / "realesr-animevideov3-x2.bin").write_bytes(altered)
    assert "altered" in "".join(faults(tmp_path))
    with pytest.raises(ProviderFailure, match=r"x2\.param cannot be read"):
        await Upscale(tmp_path).warm()


async def test_the_whole_weights_have_no_fault() -> None:
    """What `make data` unpacked is what this code was tested with."""
    assert faults(MODELS_DIR) == []


async def test_memory_is_bounded_and_stderr_silent() -> None:
    """Upscaling a megapixel needs the pictures and a few tiles on top of the loaded models, never all at once."""
    command = [sys.executable, "-m", "bench.model", "provider", "--width", "1000", "--height", "1000", "--rounds", "0"]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, check=True, timeout=300)
    assert done.stderr == b""
    peak_bytes = int(done.stdout.split(b'"peak_rss_bytes": ')[1].split(b"}")[0])
    assert peak_bytes < 640 << 20
