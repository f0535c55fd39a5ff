"""What an in-house task would cost, from rates that a worker has measured; pure."""

from collections.abc import Mapping

from providers.base import Estimate
from providers.failures import FailureKind, ProviderFailure

SCALES = (2, 3, 4)
QUALITIES = ("fast", "best")
PIXELS_PER_MEGAPIXEL = 1_000_000


def scale_of(parameters: Mapping[str, str | int]) -> int:
    """Read how many times larger the output's sides are; 1 for a filter."""
    if "filter" in parameters:
        return 1
    scale = parameters.get("scale", 2)
    if scale not in SCALES:
        raise ProviderFailure(FailureKind.INVALID_INPUT, "scale")
    return int(scale)


def variant_of(parameters: Mapping[str, str | int]) -> str:
    """Name the row of the rates that a task falls under: `fast-2`, `fast-3`, `fast-4`, `best` or a filter's name."""
    if "filter" in parameters:
        return str(parameters["filter"])
    quality = parameters.get("quality", "fast")
    if quality not in QUALITIES:
        raise ProviderFailure(FailureKind.INVALID_INPUT, "quality")
    scale = scale_of(parameters)
    return "best" if quality == "best" else f"fast-{scale}"


def estimate(rates: Mapping[str, float], parameters: Mapping[str, str | int], *, width: int, height: int) -> Estimate:
    """Expect the cost of an `upscale` or `restyle` of width × height; `rates` are seconds per input megapixel."""
    variant = variant_of(parameters)
    if variant not in rates:
        raise ProviderFailure(FailureKind.UNSUPPORTED, f"no rate for {variant}")
    pixels = width * height
    return Estimate(
        output_pixels=pixels * scale_of(parameters) ** 2,
        model_s=pixels / PIXELS_PER_MEGAPIXEL * rates[variant],
    )
