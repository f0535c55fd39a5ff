"""Operations, their parameters, and what a request may say about them."""

import json
from base64 import urlsafe_b64encode

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError, InvalidHeader, InvalidParameter, ParameterInUrl, UnknownOperation
from broker.form_errors import InvalidJson, WrongPictureCount
from broker.operations import (
    OPERATIONS,
    OutputKind,
    find_operation,
    parse_parameters,
    parse_request,
    parted,
    read_texts,
)
from broker.parameters import MAX_TEXT_CHARS, Choice, Integer, Text, Value, decode_header, decode_json

CANARY = "a red kite over Izmir"


def header(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode()


def test_the_vocabulary_is_the_designs_seven_and_noop() -> None:
    """imaginex-3: one word per operation, each beside its own definition; none recognises or identifies anybody."""
    assert set(OPERATIONS) == {
        *("upscale", "restyle", "animate", "generate", "edit", "photoshoot", "remove_background"),
        "noop",
    }
    assert all(operation.name == name for name, operation in OPERATIONS.items())


@pytest.mark.parametrize(
    ("name", "pairs", "parameters"),
    [
        ("upscale", [], {"scale": 2, "quality": "fast"}),
        ("upscale", [("scale", "4"), ("quality", "best")], {"scale": 4, "quality": "best"}),
        ("upscale", [("operation", "upscale"), ("scale", "3")], {"scale": 3, "quality": "fast"}),
        ("restyle", [], {"filter": "pencil", "strength": 50}),
        ("restyle", [("strength", "1")], {"filter": "pencil", "strength": 1}),
        ("noop", [], {}),
        ("animate", [], {"duration_s": 5}),
        ("animate", [("duration_s", "10")], {"duration_s": 10}),
        ("photoshoot", [], {"count": 4}),
        ("remove_background", [], {}),
    ],
)
def test_a_query_is_read_and_defaults_are_filled_in(
    name: str, pairs: list[tuple[str, str]], parameters: dict[str, Value]
) -> None:
    """What is not given has its declared default."""
    assert parse_request(name, pairs) == parameters


@pytest.mark.parametrize(
    ("name", "pairs", "pointer"),
    [
        ("upscale", [("scale", "5")], "#/parameters/scale"),
        ("upscale", [("scale", "2.0")], "#/parameters/scale"),
        ("upscale", [("scale", " 2")], "#/parameters/scale"),
        ("upscale", [("scale", "٢")], "#/parameters/scale"),
        ("upscale", [("scale", "")], "#/parameters/scale"),
        ("upscale", [("quality", "BEST")], "#/parameters/quality"),
        ("restyle", [("strength", "0")], "#/parameters/strength"),
        ("restyle", [("strength", "101")], "#/parameters/strength"),
        ("restyle", [("strength", "1_0")], "#/parameters/strength"),
        ("restyle", [("strength", "9" * 5_000)], "#/parameters/strength"),
        ("upscale", [("sale", "2")], "#/parameters/sale"),
        ("upscale", [(CANARY, "2")], "#/parameters"),
        ("upscale", [("scale", "2"), ("scale", "2")], "#/parameters/scale"),
        ("upscale", [("operation", "restyle")], "#/parameters/operation"),
        ("upscale", [("operation", "upscale"), ("operation", "upscale")], "#/parameters/operation"),
        ("noop", [("scale", "2")], "#/parameters/scale"),
    ],
)
def test_a_wrong_query_points_at_the_parameter(name: str, pairs: list[tuple[str, str]], pointer: str) -> None:
    """Out of range, unknown, repeated: 422 with a pointer, and the value is not quoted."""
    with pytest.raises(InvalidParameter) as caught:
        parse_request(name, pairs)
    assert caught.value.pointer == pointer
    assert CANARY not in caught.value.detail


@pytest.mark.parametrize("name", ["edit", "generate", "animate", "photoshoot", "restyle"])
def test_free_text_never_stands_in_a_url(name: str) -> None:
    """A text parameter in the query is refused even where its value would do, and is not quoted."""
    for value in ("", CANARY):
        with pytest.raises(ParameterInUrl) as caught:
            parse_request(name, [("prompt", value)])
        assert caught.value.pointer == "#/parameters/prompt"
        assert CANARY not in caught.value.detail


@pytest.mark.parametrize("name", ["", "Upscale", "colorize", CANARY])
def test_an_unknown_operation_is_refused(name: str) -> None:
    """422 unknown_operation, whatever was called so."""
    with pytest.raises(UnknownOperation) as caught:
        parse_request(name, [])
    assert CANARY not in caught.value.detail


@pytest.mark.parametrize(
    ("name", "mapping"),
    [
        ("upscale", {"scale": "2"}),
        ("upscale", {"scale": True}),
        ("upscale", {"scale": 2.0}),
        ("upscale", {"scale": None}),
        ("restyle", {"strength": True}),
        ("restyle", {"strength": 50.5}),
        ("restyle", {"filter": ["pencil"]}),
        ("upscale", {"extra": 1}),
        ("upscale", {"operation": "upscale"}),
        ("edit", {}),
        ("edit", {"prompt": ""}),
        ("edit", {"prompt": 7}),
        ("edit", {"prompt": "x" * (MAX_TEXT_CHARS + 1)}),
        ("edit", {"prompt": "\ud800"}),
    ],
)
def test_json_parameters_have_exactly_their_declared_type(name: str, mapping: dict[str, object]) -> None:
    """No coercion, no unknown field, no missing prompt, no text that cannot be encoded again."""
    with pytest.raises(InvalidParameter):
        parse_parameters(name, mapping)


def test_what_a_user_typed_is_parted_from_the_rest() -> None:
    """A prompt goes into a buffer of its own, and can be read back; without one there is none."""
    plain, texts = parted("edit", parse_parameters("edit", {"prompt": CANARY, "count": 2}))
    assert (plain, read_texts(texts)) == ({"count": 2}, {"prompt": CANARY})
    assert parted("restyle", parse_request("restyle", [])) == ({"filter": "pencil", "strength": 50}, b"")
    assert parted("noop", {}) == ({}, b"")
    assert find_operation("edit").texts == {"prompt"}


@pytest.mark.parametrize(
    ("name", "fitting", "others"),
    [
        ("upscale", [1], [0, 2]),
        ("generate", [0], [1]),
        ("edit", [1, 16], [0, 17]),
        ("photoshoot", [1, 20], [0, 21]),
    ],
)
def test_an_operation_says_how_many_pictures_it_takes(name: str, fitting: list[int], others: list[int]) -> None:
    """Another number is 422, and the answer says what would be right."""
    operation = find_operation(name)
    for count in fitting:
        operation.require_pictures(count)
    for count in others:
        with pytest.raises(WrongPictureCount, match=f"{name} takes"):
            operation.require_pictures(count)


def test_an_operation_says_what_it_makes() -> None:
    """As many outputs as `count` may ask for, and a film where the picture moves."""
    for operation in OPERATIONS.values():
        count = operation.parameters.get("count")
        assert operation.outputs.max == (count.maximum if isinstance(count, Integer) else 1)
        assert (operation.outputs.kind is OutputKind.VIDEO) == (operation.name == "animate")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"a":1,"a":2}', b"\xff", b"[" * 9_000, b"nul"])
def test_json_that_cannot_be_read_is_refused(data: bytes) -> None:
    """Anything but one JSON object without repeated names is 400 invalid_json."""
    with pytest.raises(InvalidJson):
        decode_json(data)
    assert decode_json(b'{"a": {"b": 1}}') == {"a": {"b": 1}}


def test_url_and_header_complete_each_other() -> None:
    """Each parameter comes from one place; given in both it is refused, even when equal."""
    assert parse_request("upscale", [("scale", "4")], header({"quality": "best"})) == {"scale": 4, "quality": "best"}
    assert parse_request("edit", [("operation", "edit")], header({"prompt": CANARY})) == {
        "prompt": CANARY,
        "count": 1,
    }
    assert parse_request("upscale", []) == {"scale": 2, "quality": "fast"}
    with pytest.raises(InvalidParameter, match="in the URL and in the header"):
        parse_request("upscale", [("scale", "4")], header({"scale": 4}))


def test_the_header_is_read_with_and_without_padding() -> None:
    """Both forms of base64url that clients write are the same."""
    padded = header({"prompt": CANARY + "!!"})
    assert padded.endswith("=")
    assert decode_header(padded) == decode_header(padded.rstrip("=")) == {"prompt": CANARY + "!!"}
    assert decode_header(header({"p": "éİ漢"})) == {"p": "éİ漢"}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "e",
        "not base64!",
        "e30\n",
        "e3 0",
        "+/+/",
        header([1]),
        header("text"),
        header(None),
        urlsafe_b64encode(b'{"a":1,"a":2}').decode(),
        urlsafe_b64encode(b'{"a":{"b":1,"b":2}}').decode(),
        urlsafe_b64encode(b'{"a":1').decode(),
        urlsafe_b64encode(b"\xff\xfe{\x00}\x00").decode(),
        urlsafe_b64encode(b"[" * 9_000).decode(),
        "e30" * 10_000,
    ],
)
def test_a_header_that_cannot_be_read_is_refused(value: str) -> None:
    """Anything but base64url of one JSON object without repeated names is 400 invalid_header."""
    with pytest.raises(InvalidHeader) as caught:
        decode_header(value)
    assert caught.value.pointer == "#/headers/Lethe-Parameters"


@given(value=st.text(max_size=200), name=st.sampled_from(sorted(OPERATIONS)))
def test_no_header_breaks_the_reader(value: str, name: str) -> None:
    """Any text is either read or refused with an error of ours."""
    with pytest.raises(BrokerError):
        parse_request(name, [], "x" + value + "!")


@given(mapping=st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(max_size=9)))
def test_what_is_accepted_fits_the_schema(mapping: dict[str, object]) -> None:
    """The published schema and the reader agree on what they take."""
    for name, operation in OPERATIONS.items():
        try:
            parameters = parse_parameters(name, mapping)
        except InvalidParameter:
            continue
        jsonschema.validate(parameters, operation.schema())


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_a_schema_is_valid_and_says_what_is_required(name: str) -> None:
    """GET /v1/operations gives JSON Schema whose defaults its own rules accept."""
    operation = OPERATIONS[name]
    schema = operation.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    required = {key for key, parameter in operation.parameters.items() if isinstance(parameter, Text)}
    assert set(schema.get("required", ())) == {key for key in required if operation.parameters[key].default is None}
    for key, parameter in operation.parameters.items():
        if isinstance(parameter, Choice | Integer):
            assert parameter.read(parameter.default) == parameter.default
            jsonschema.validate(parameter.default, schema["properties"][key])
