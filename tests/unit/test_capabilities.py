"""What a provider has to be able to do before it is given a job."""

from typing import Any

import msgspec
import pytest

from broker.operations import OPERATIONS
from broker.routing import Needs, cannot
from tests.routes import EDIT, MOST, UPSCALE, config, ours, provider, ranked


def needs(**changed: Any) -> Needs:
    return msgspec.structs.replace(EDIT, **changed)


@pytest.mark.parametrize(
    ("task", "model", "reason"),
    [
        (needs(), {}, ""),
        (needs(pictures=3), {}, ""),
        (needs(pictures=MOST + 1), {}, f"it takes {MOST} pictures at most"),
        (needs(pictures=3), {"max_pictures": 2}, "it takes 2 pictures at most"),
        (needs(), {"input": {"p": "$prompt"}}, "it would not be given every picture: its input names neither $image"),
        (needs(pictures=2), {"input": {"p": "$prompt", "i": "$image"}}, "it would not be given every picture"),
        (needs(pictures=2), {"input": {"p": "$prompt", "i": "$image", "m": "$image2"}}, ""),
        (needs(pictures=3), {"input": {"p": "$prompt", "i": "$image", "m": "$image2"}}, "it would not be given every"),
        (needs(pixels=12_000_000), {"max_pixels": 4_000_000}, "it takes 4000000 pixels at most"),
        (needs(pixels=4_000_000), {"max_pixels": 4_000_000}, ""),
        (needs(pixels=None), {"max_pixels": 4_000_000}, ""),
        (needs(parameters={"prompt": "x", "count": 3}), {"max_outputs": 2}, "it makes 2 outputs at most"),
        (needs(), {"input": {"i": "$image"}}, "it does not take the parameter prompt"),
        (needs(), {"input": {"p": "$prompt", "i": "$image"}}, ""),
        (
            needs(parameters={"prompt": "x", "count": 2}),
            {"input": {"p": "$prompt", "i": "$image"}},
            "it does not take the parameter count",
        ),
        (
            needs(parameters={"prompt": "x", "count": 2}),
            {"values": {"count": (1, 4)}},
            "it does not take this count",
        ),
        (needs(operation="generate", pictures=0, parameters={"prompt": "x"}), {}, "it does not run generate"),
    ],
)
def test_who_cannot_take_all_that_is_asked_is_no_candidate(task: Needs, model: dict[str, Any], reason: str) -> None:
    """A job never succeeds without its picture or without a parameter: the provider is left out, with the reason."""
    one = provider(**model)
    said = cannot(one, task)
    assert said.startswith(reason) if reason else said == ""
    assert ranked(config({"a": 1}, providers={"a": one}), task) == ([] if reason else ["a"])


def test_a_value_that_is_everybodys_default_needs_no_place() -> None:
    """A model that only ever makes twice as large takes scale 2, and no other, where it says so."""
    doubles = provider(operation="upscale", input={"image": "$image"}, values={"scale": (2,)})
    assert cannot(doubles, UPSCALE) == ""
    other = msgspec.structs.replace(UPSCALE, parameters={"scale": 4, "quality": "fast"})
    assert cannot(doubles, other) == "it does not take this scale"


def test_an_adapter_that_sends_pictures_needs_no_name_for_them() -> None:
    """Where pictures are a part of the protocol the input need not name them."""
    images = msgspec.structs.replace(provider(input={"prompt": "$prompt", "n": "$count"}), adapter="openai_images")
    assert images.adapter_terms.sends_pictures
    assert cannot(images, needs(pictures=3)) == ""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_plainest_task_is_one_that_a_plain_provider_can_do(operation: str) -> None:
    """What GET /v1/operations asks about is the least that anybody may ask."""
    plain = Needs.any_of(operation)
    required = {name for name, parameter in OPERATIONS[operation].parameters.items() if parameter.default is None}
    assert set(plain.parameters) >= required
    assert plain.pictures == OPERATIONS[operation].pictures.min
    template = {"image": "$image", **{name: f"${name}" for name in required}}
    assert cannot(provider(operation=operation, input=template, max_outputs=plain.count), plain) == ""


def test_in_house_models_are_judged_like_everybody() -> None:
    """Their parameters are known, too: a prompt is nothing that the pencil takes."""
    pencil = ours("pencil")
    asked = {"filter": "pencil", "strength": 50}
    assert cannot(pencil, Needs(operation="restyle", parameters=asked)) == ""
    said = cannot(pencil, Needs(operation="restyle", parameters={**asked, "prompt": "x"}))
    assert said == "it does not take the parameter prompt"
    assert cannot(pencil, UPSCALE) == "it does not run upscale"
