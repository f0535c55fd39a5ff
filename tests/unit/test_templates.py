"""How a model's input is filled, and how outputs are found in an answer."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import Model, Output, cost_of
from providers.failures import FailureKind, ProviderFailure
from providers.templates import (
    check_template,
    decode_base64,
    is_picture,
    model_for,
    names_in,
    outputs_of,
    picture_values,
    pointed,
    render,
    wants_picture,
)

NONE: set[str] = set()
PNG = b"\x89PNG\r\n\x1a\n-not-really"
IN_BASE64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("template", "values", "filled"),
    [
        ({"p": "$prompt"}, {"prompt": "a hat"}, {"p": "a hat"}),
        ({"s": "$scale"}, {"scale": 4}, {"s": 4}),
        ({"s": "$scale:2"}, {"scale": 4}, {"s": 4}),
        ({"s": "$scale:2"}, {}, {"s": 2}),
        ({"s": '$style:"none"'}, {}, {"s": "none"}),
        ({"s": '$style:{"a": [1]}'}, {}, {"s": {"a": [1]}}),
        ({"s": "$flag:false"}, {}, {"s": False}),
        ({"s": "$prompt", "n": 1}, {}, {"n": 1}),
        ({"s": "$prompt:null", "n": 1}, {}, {"n": 1}),
        ({"a": {"b": [{"c": "$image"}, "$scale:1"]}}, {"image": "data:"}, {"a": {"b": [{"c": "data:"}, 1]}}),
        ({"all": "$images"}, {"images": ["x", "y"]}, {"all": ["x", "y"]}),
        ({"a": ["$prompt", "x"]}, {}, {"a": [None, "x"]}),
        (
            {"plain": "text", "n": 7, "f": 0.5, "t": True},
            {"text": "no"},
            {"plain": "text", "n": 7, "f": 0.5, "t": True},
        ),
        ({"p": "$prompt"}, {"prompt": "$image", "image": "secret"}, {"p": "$image"}),
        ({"p": "$prompt"}, {"prompt": ""}, {"p": ""}),
        ({"p": "$prompt:1"}, {"prompt": "two\nlines"}, {"p": "two\nlines"}),
        ({"$prompt": "x"}, {"prompt": "no"}, {"$prompt": "x"}),
        ({}, {"prompt": "x"}, {}),
    ],
)
def test_a_template_is_filled(template: Any, values: dict[str, Any], filled: Any) -> None:
    """A name becomes its value, of its own type, or its default; a key without either goes; the rest stays."""
    before = msgspec.json.encode(template)
    assert render(template, values) == filled
    assert msgspec.json.encode(template) == before, "the configuration is not changed"


@given(text=st.text(max_size=30))
def test_what_a_user_types_is_never_a_template(text: str) -> None:
    """Values are put in as they are, whatever they look like."""
    assert render({"p": ["$prompt"]}, {"prompt": text, "image": "secret", "attempt": "secret"}) == {"p": [text]}


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ({"a": "$image", "b": ["$scale:2", {"c": "$prompt"}], "d": "text", "e": 7}, {"image", "scale", "prompt"}),
        ({"a": "a $prompt", "b": "$Prompt", "c": "$", "d": "$1"}, NONE),
        ({"a": '$prompt:"$image"'}, {"prompt"}),
        ({"$image": 1}, NONE),
        ("$image2", {"image2"}),
        ({}, NONE),
    ],
)
def test_names_are_found_however_deep(template: Any, names: set[str]) -> None:
    """What is found here is what will be filled in."""
    assert names_in(template) == names


def test_a_template_as_deep_as_a_graph_is_walked() -> None:
    """A workflow of another program has thousands of nodes, nested."""
    deep: Any = "$prompt"
    for _ in range(300):
        deep = {"inputs": [deep, 1, "text"]}
    assert names_in(deep) == {"prompt"}


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ({"a": "$prompt", "b": '$style:"none"', "c": "$n:1", "d": "5 $", "e": "$5", "f": "a$ b"}, ""),
        ({"a": "$style:none"}, "the default after a colon has to be JSON"),
        ({"a": [{"b": "$style:"}]}, "the default after a colon has to be JSON"),
        ({"a": "a photo of $prompt"}, "'a photo of $prompt' is sent as it stands"),
        ({"a": ["${prompt}"]}, "'${prompt}' is sent as it stands"),
        ({"a": "$Prompt"}, "'$Prompt' is sent as it stands"),
        ({"a": "$prompt "}, "'$prompt ' is sent as it stands"),
    ],
)
def test_a_wrong_template_is_found_before_it_is_used(template: Any, fault: str) -> None:
    """A default that cannot be read, or a name that would be sent as text, is told at start."""
    said = check_template(Model(input=template))
    assert said.startswith(fault) if fault else said == ""


def test_pictures_have_names() -> None:
    """The first is `image` and `image1`, the others are numbered, all of them are `images`."""
    assert picture_values([]) == {}
    values = picture_values(["a", "b"])
    assert values == {"image": "a", "images": ["a", "b"], "image1": "a", "image2": "b"}
    assert all(is_picture(name) for name in values)
    assert not any(is_picture(name) for name in ("prompt", "imagery", "image_url", "images2", ""))


def test_only_the_pictures_that_are_named_are_sent() -> None:
    """A picture that no name stands for does not leave."""
    assert wants_picture({"i": "$image"}, 1)
    assert not wants_picture({"i": "$image"}, 2)
    assert wants_picture({"i": "$image2"}, 2)
    assert not wants_picture({"i": "$image2"}, 1)
    assert wants_picture({"i": ["$images"]}, 7)
    assert not wants_picture({"p": "$prompt"}, 1)


DOCUMENT = {"a": {"b": [10, {"c/d": 1, "e~f": 2, "": 3, "~1": 4}]}, "0": "zero", "": "empty"}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", DOCUMENT),
        ("/a/b/0", 10),
        ("/a/b/1/c~1d", 1),
        ("/a/b/1/e~0f", 2),
        ("/a/b/1/", 3),
        ("/a/b/1/~01", 4),
        ("/0", "zero"),
        ("/", "empty"),
    ],
)
def test_a_pointer_leads_to_its_value(pointer: str, found: Any) -> None:
    """RFC 6901, with its escapes."""
    assert pointed(DOCUMENT, pointer) == found


@pytest.mark.parametrize("pointer", ["/x", "/a/b/2", "/a/b/x", "/a/b/-1", "/a/b/ 0", "/a/b/00", "/a/b/0/c", "/0/1"])
def test_a_pointer_that_leads_nowhere_is_a_bad_output(pointer: str) -> None:
    """The provider says that it succeeded, and what it made is not where it should be."""
    assert bad(lambda: pointed(DOCUMENT, pointer)) == "no_output"


def bad(make: Any) -> str:
    with pytest.raises(ProviderFailure) as caught:
        make()
    assert caught.value.kind is FailureKind.BAD_OUTPUT
    assert IN_BASE64 not in str(caught.value)
    return caught.value.detail


@pytest.mark.parametrize(
    ("found", "outputs"),
    [
        ("https://x.example/a.png", [Output(url="https://x.example/a.png", media_type="image/webp")]),
        ("http://x.example/a", [Output(url="http://x.example/a", media_type="image/webp")]),
        (IN_BASE64, [Output(data=PNG, media_type="image/webp")]),
        (f"data:image/png;base64,{IN_BASE64}", [Output(data=PNG, media_type="image/png")]),
        (f"data:image/png;name=x.png;base64,{IN_BASE64}", [Output(data=PNG, media_type="image/png")]),
        (f"DATA:image/png;base64,{IN_BASE64}", [Output(data=PNG, media_type="image/png")]),
        (f"data:;base64,{IN_BASE64}", [Output(data=PNG, media_type="")]),
        (["https://a.example/1", IN_BASE64], [Output(url="https://a.example/1", media_type="image/webp"), None]),
    ],
)
def test_outputs_come_in_three_forms(found: Any, outputs: list[Output | None]) -> None:
    """A URL, a data URI or base64, alone or in a list; what the provider says of the type is passed on."""
    made = outputs_of(found, media_type="image/webp")
    plain = Output(data=PNG, media_type="image/webp")
    assert list(made) == [plain if output is None else output for output in outputs]


@pytest.mark.parametrize(
    ("found", "detail"),
    [
        (None, "no_output"),
        ([], "no_output"),
        ("", "no_output"),
        (7, "no_output"),
        ({"url": "https://x.example"}, "no_output"),
        (["https://x.example", None], "no_output"),
        ([["https://x.example"]], "no_output"),
        ("not base64!", "base64"),
        (IN_BASE64[:-1], "base64"),
        (f"{IN_BASE64}\n", "base64"),
        ("data:image/png,raw", "data_uri"),
        ("ftp://x.example/a", "base64"),
    ],
)
def test_anything_else_is_a_bad_output(found: Any, detail: str) -> None:
    """Nothing is guessed, and nothing of it stands in the error."""
    assert bad(lambda: outputs_of(found)) == detail


@given(data=st.binary(max_size=64))
def test_base64_is_read_back(data: bytes) -> None:
    """Whatever bytes a provider made arrive as they were."""
    assert decode_base64(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
    ("model_s", "usd_per_s", "cost_usd"), [(1.5, 0.25, 0.375), (0.0, 0.25, None), (-3.0, 0.25, None), (1.5, None, None)]
)
def test_seconds_cost_what_the_configuration_says(
    model_s: float, usd_per_s: float | None, cost_usd: float | None
) -> None:
    """Nothing is said of a price where seconds or their price are not told; no time is negative."""
    assert cost_of(model_s, usd_per_s) == cost_usd


def test_an_operation_without_a_model_is_unsupported() -> None:
    """Nothing is sent, so that nothing can be there."""
    upscaler = Model(model="upscaler")
    assert model_for({"upscale": upscaler}, "upscale") is upscaler
    with pytest.raises(ProviderFailure) as caught:
        model_for({"upscale": upscaler}, "edit")
    assert (caught.value.kind, caught.value.is_unsent) == (FailureKind.UNSUPPORTED, True)
