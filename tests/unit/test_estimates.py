"""What a task would cost follows from measured rates alone."""

import pytest

from providers.base import Estimate
from providers.estimates import estimate, scale_of, variant_of
from providers.failures import FailureKind, ProviderFailure

RATES = {"fast-2": 5.0, "best": 300.0, "pencil": 0.1}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, Estimate(output_pixels=8_000_000, model_s=10.0)),
        ({"scale": 2, "quality": "fast"}, Estimate(output_pixels=8_000_000, model_s=10.0)),
        ({"scale": 4, "quality": "best"}, Estimate(output_pixels=32_000_000, model_s=600.0)),
        ({"filter": "pencil", "strength": 9}, Estimate(output_pixels=2_000_000, model_s=0.2)),
    ],
)
def test_cost_is_rate_times_megapixels(parameters: dict[str, str | int], expected: Estimate) -> None:
    """Seconds grow with the input, pixels with the square of the scale."""
    assert estimate(RATES, parameters, width=2000, height=1000) == expected


@pytest.mark.parametrize("parameters", [{"scale": 5}, {"scale": "2"}, {"scale": True}, {"quality": "good"}])
def test_values_outside_the_choices_are_refused(parameters: dict[str, str | int]) -> None:
    """Only the documented scales and qualities have a cost."""
    with pytest.raises(ProviderFailure) as caught:
        estimate(RATES, parameters, width=1, height=1)
    assert caught.value.kind is FailureKind.INVALID_INPUT


def test_a_variant_nobody_measured_is_unsupported() -> None:
    """No worker, no promise."""
    with pytest.raises(ProviderFailure) as caught:
        estimate(RATES, {"scale": 3}, width=1, height=1)
    assert caught.value.kind is FailureKind.UNSUPPORTED


def test_best_has_one_rate_for_all_scales() -> None:
    """The better model always runs at ×4; smaller outputs are reduced from it."""
    assert {variant_of({"quality": "best", "scale": scale}) for scale in (2, 3, 4)} == {"best"}
    assert scale_of({"quality": "best", "scale": 3}) == 3
