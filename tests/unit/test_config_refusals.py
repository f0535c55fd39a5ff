"""lethe.toml: where a wrong file is said to be wrong, and in which words."""

import pytest

from policies.toml_file import ConfigInvalid
from providers.base import Takes, Terms
from tests.configs import ACME, GOOD, acme, edited, read


@pytest.fixture(autouse=True)
def known_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    acme(monkeypatch)


def refusal(text: str) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        read(text)
    return caught.value


def test_the_file_that_the_others_are_made_from_is_right() -> None:
    """Whatever is refused below is refused for its one change."""
    assert read(GOOD).operations == ("upscale", "noop")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("exposure", "ephemeral", "acme documents logged, which is wider; name the agreement that says otherwise"),
        ("exposure", "local", "acme documents logged, which is wider"),
        ("exposure", "lokal", "has to be one of local, ephemeral, logged, public"),
        ("exposure", 3, "has to be one of local"),
        ("adapter", "akme", "no adapter has this name; there is inhouse, "),
        ("adapter", ["acme"], "no adapter has this name; there is inhouse, "),
        ("base_url", "", "is missing; this adapter has no usual place"),
        ("base_url", "http://api.acme.example", "a provider outside needs https; http is for this machine, or for"),
        ("base_url", "http://192.168.1.7:8000", "a provider outside needs https"),
        ("base_url", "http://127.1", "a provider outside needs https"),
        ("base_url", "http://localhost.acme.example", "a provider outside needs https"),
        ("base_url", "ftp://api.acme.example", "has to be an http or https URL without user, query and fragment"),
        ("base_url", "api.acme.example", "has to be an http or https URL"),
        ("base_url", "https://", "has to be an http or https URL"),
        ("base_url", "https://key:hunter2@api.acme.example", "has to be an http or https URL without user"),
        ("base_url", "https://:hunter2@api.acme.example", "has to be an http or https URL without user"),
        ("base_url", "https://api.acme.example?key=hunter2", "has to be an http or https URL without user"),
        ("base_url", "https://api.acme.example/v1?key=hunter2", "has to be an http or https URL without user"),
        ("base_url", "https://api.acme.example/v1#part", "has to be an http or https URL without user"),
        ("base_url", "https://api acme.example", "has to be an http or https URL"),
        ("base_url", "https://api.acme.example:99999", "has to be an http or https URL"),
        ("base_url", "https://api.acme.example:port", "has to be an http or https URL"),
        ("base_url", "https://[::1", "has to be an http or https URL"),
        ("base_url", "https://[1.2]", "has to be an http or https URL"),
        ("base_url", 7, "Expected `str`, got `int`"),
        ("secret", "sk-hunter2", "has to be env:NAME or file:/path; a secret never stands in this file"),
        ("secret", "hunter2", "a secret never stands in this file"),
        ("secret", "env:", "has to be env:NAME or file:/path"),
        ("secret", "env:hunter-2", "has to be env:NAME or file:/path"),
        ("secret", "file:hunter2", "has to be env:NAME or file:/path"),
        ("secret", "", "has to be env:NAME or file:/path"),
        ("secret", 7, "Expected `str | null`, got `int`"),
        ("hosts", [], "is missing; outputs come as URLs, so name the hosts that they may point to"),
        ("hosts", ["*"], "'*' is no host; write example.org, or *.example.org"),
        ("hosts", ["*.com"], "'*.com' is no host"),
        ("hosts", ["a.example", "https://b.example"], "'https://b.example' is no host"),
        ("hosts", ["a.example:443"], "'a.example:443' is no host"),
        ("hosts", ["A.example"], "'A.example' is no host"),
        ("hosts", [""], "'' is no host"),
        ("hosts", "a.example", "Expected `array`, got `str`"),
    ],
)
def test_a_wrong_provider_is_refused_where_it_stands(field: str, value: object, reason: str) -> None:
    """Terms below the adapter's, places that are not safe, secrets and hosts: each with its line and what to do."""
    text = edited(GOOD, {field: value})
    error = refusal(text)
    assert (error.file, error.line) == ("lethe.toml", line_in(text, "[provider.acme]", field))
    assert reason in error.reason
    assert error.reason.startswith(f"provider.acme.{field}")
    assert "hunter" not in str(error), "what stands where a secret may stand is never repeated"


def line_in(text: str, table: str, key: str) -> int:
    lines = text.splitlines()
    start = lines.index(table)
    return next(n for n, line in enumerate(lines, 1) if n > start and line.lstrip().startswith(f"{key} "))


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("adapter", "provider.acme.adapter: is missing; there is inhouse, "),
        ("exposure", "provider.acme: Object missing required field `exposure`"),
        ("base_url", "provider.acme.base_url: is missing"),
        ("secret", "provider.acme.secret: is missing; acme needs one, as env:NAME or file:/path"),
        ("hosts", "provider.acme.hosts: is missing"),
    ],
)
def test_what_is_missing_is_named_at_its_provider(field: str, reason: str) -> None:
    """There is no line of what is not there: that of the provider is given."""
    text = edited(GOOD, {field: None})
    error = refusal(text)
    assert reason in error.reason
    assert error.line == text.splitlines().index("[provider.acme]") + 1


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("retention_s", 60, "acme documents 3600 s, which is longer; name the agreement that says otherwise in `contr"),
        ("retention_s", -1, "Expected `int` >= 0"),
        ("retention_s", 1.5, "Expected `int`, got `float`"),
        ("concurrency", 0, "Expected `int` >= 1"),
        ("timeout_s", 0, "Expected `float` > 0"),
        ("pool", "gpu 1", "Expected `str` matching regex"),
        ("contract", ["2026"], "Expected `str`, got `array`"),
        ("retries", 3, "Object contains unknown field `retries`"),
        ("model", "up-2", "Object contains unknown field `model`"),
    ],
)
def test_a_wrong_field_that_was_added_is_refused(field: str, value: object, reason: str) -> None:
    """Numbers have bounds, and what nobody reads is refused, as it is a slip of the pen."""
    text = edited(GOOD, {field: value})
    error = refusal(text)
    assert reason in error.reason
    assert error.line == line_in(text, "[provider.acme]", field)


def test_an_empty_contract_names_no_agreement() -> None:
    """`contract` is a statement, not a switch."""
    assert "acme documents logged" in refusal(edited(GOOD, {"exposure": "local", "contract": " "})).reason


UPSCALE = 'input = { image = "$image", scale = "$scale:2" }'


@pytest.mark.parametrize(
    ("was", "now", "reason"),
    [
        ("$scale:2", "$scale:two", "acme.operation.upscale.input: the default after a colon has to be JSON"),
        ("$scale:2", "$scale:", "the default after a colon has to be JSON"),
        ("$scale:2", "$scal", "$scal is nothing that upscale is given; there is image, images, scale, quality"),
        ("$scale:2", "$prompt", "$prompt is nothing that upscale is given"),
        ("$image", "$image2", "$image2 is nothing that upscale is given"),
        ("$image", "$Image", "'$Image' is sent as it stands"),
        ("$image", "${image}", "'${image}' is sent as it stands"),
        ("$scale:2", "times $scale", "'times $scale' is sent as it stands: a name like $prompt is filled in where"),
        (UPSCALE, "input = 7", "upscale.input: Expected `object`, got `int`"),
        (UPSCALE, "inputs = {}", "upscale.inputs: Object contains unknown field `inputs`"),
        ("cost_usd = 0.004", "cost_usd = -1", "upscale.cost_usd: Expected `float` >= 0.0"),
        ("cost_usd = 0.004", "cost_usd = nan", "upscale.cost_usd: Expected `float` >= 0.0"),
        ("cost_usd = 0.004", "usd_per_s = -1", "upscale.usd_per_s: Expected `float` >= 0.0"),
        ("cost_usd = 0.004", "max_outputs = 0", "upscale.max_outputs: Expected `int` >= 1"),
        ("cost_usd = 0.004", "max_pictures = 0", "upscale.max_pictures: Expected `int` >= 1"),
        ("cost_usd = 0.004", "max_pixels = 0", "upscale.max_pixels: Expected `int` >= 1"),
        (
            "cost_usd = 0.004",
            "values = { strength = [1] }",
            "values.strength: is no parameter of upscale; there is sca",
        ),
        ("cost_usd = 0.004", "values = { scale = [2, 8] }", "values.scale: 8 is nothing that this parameter can be"),
        ("cost_usd = 0.004", 'values = { scale = ["2"] }', "values.scale: '2' is nothing that this parameter can be"),
        ("cost_usd = 0.004", "values = { scale = [] }", "Expected `array` of length >= 1"),
        ("cost_usd = 0.004", 'media_types = ["image/heic"]', "image/heic is not among what is sent: image/jpeg, imag"),
        ('output = "/result/0"', 'output = "result"', "upscale.output: has to be a JSON pointer, which begins with"),
    ],
)
def test_a_wrong_model_is_refused_where_it_stands(was: str, now: str, reason: str) -> None:
    """Its template, its values and its numbers are checked at start, not by the first job."""
    before, middle, after = GOOD.partition("[provider.acme.operation.upscale]\n")
    text = before + middle + after.replace(was, now, 1)
    error = refusal(text)
    assert reason in str(error)
    changed = next(n for n, (a, b) in enumerate(zip(GOOD.splitlines(), text.splitlines(), strict=True), 1) if a != b)
    assert error.line == changed


def test_an_input_table_of_its_own_is_pointed_at() -> None:
    """Long inputs are written as a table; the line is the table's."""
    table = '[provider.acme.operation.upscale.input]\nimage = "$image"\nscale = "$scal"'
    text = GOOD.replace(UPSCALE + '\noutput = "/result/0"\ncost_usd = 0.004', table)
    error = refusal(text)
    assert error.line == text.splitlines().index("[provider.acme.operation.upscale.input]") + 1
    assert "$scal is nothing" in error.reason


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ("animate", "provider.acme.operation.animate: this adapter runs edit, generate, photoshoot, upscale"),
        ("upscal", "provider.acme.operation.upscal: no operation has this name; there is upscale, restyle, "),
    ],
)
def test_an_operation_that_the_adapter_cannot_run_is_refused(operation: str, reason: str) -> None:
    """An adapter runs what it documents."""
    text = GOOD.replace("[provider.acme.operation.upscale]", f"[provider.acme.operation.{operation}]")
    error = refusal(text)
    assert (error.line, reason in error.reason) == (20, True), str(error)


def test_a_provider_outside_runs_something() -> None:
    """Without an operation there is nothing to run."""
    text = GOOD.replace("operation.upscale.input = { image =", "operation = {} # ")
    assert "provider.mirror.operation: Expected `object` of length >= 1" in refusal(text).reason


@pytest.mark.parametrize(
    ("was", "now", "line", "reason"),
    [
        ('model = "noop"', 'model = "nope"', 10, "provider.idle.model: no in-house model has this name; there is real"),
        ('model = "noop"', "model = 7", 10, "provider.idle.model: Expected `str`, got `int`"),
        ('pool = "gpu"\nmodel = "noop"', 'model = "noop"', 7, "provider.idle: Object missing required field `pool`"),
        ('model = "noop"', 'model = "noop"\nsecret = "env:X"', 11, "provider.idle.secret: Object contains unknown"),
        ("[provider.idle]", "[provider.Idle]", 7, "provider.Idle: a name is a lower-case letter and up to 31 letters"),
        ("[provider.idle]", f"[provider.{'i' * 33}]", 7, "a name is a lower-case letter and up to 31"),
        ("{ gpu = 9, acme = 1 }", "{ gpu = 9, akme = 1 }", 48, "route.0.tiers.0.akme: no [provider] has this name"),
        ("{ gpu = 9, acme = 1 }", "{ gpu = 9, spare = 1 }", 48, "tiers.0.spare: this provider does not run upscale"),
        ("  { mirror = 1 }", "  { mirror = 1, gpu = 1 }", 48, "tiers.1.gpu: stands in two tiers of this route"),
        ("  { mirror = 1 }", "  { mirror = 0 }", 49, "tiers.1.mirror: a weight is a whole number from 1 to 1000"),
        ("  { mirror = 1 }", "  { mirror = -1 }", 49, "tiers.1.mirror: a weight is a whole number"),
        ("  { mirror = 1 }", "  { mirror = 1001 }", 49, "tiers.1.mirror: a weight is a whole number"),
        ("  { mirror = 1 }", "  { mirror = 0.5 }", 49, "tiers.1.mirror: a weight is a whole number"),
        ("  { mirror = 1 }", "  { mirror = true }", 49, "tiers.1.mirror: a weight is a whole number"),
        ("  { mirror = 1 }", '  { mirror = "1" }', 49, "tiers.1.mirror: a weight is a whole number"),
        ("  { mirror = 1 }", "  {}", 47, "route.0.tiers.1: Expected `object` of length >= 1"),
        ("  { mirror = 1 }", '  "mirror"', 47, "route.0.tiers.1: Expected `object`, got `str`"),
        ("tiers = [{ idle = 1 }]", "tiers = []", 59, "route.1.tiers: Expected `array` of length >= 1"),
        ("tiers = [{ idle = 1 }]", 'tiers = "idle"', 59, "route.1.tiers: Expected `array`, got `str`"),
        ('operation = "noop"\n', "", 57, "route.1: Object missing required field `operation`"),
        ('operation = "noop"', 'operation = "nothing"', 58, "route.1.operation: no operation has this name; there is"),
        ('operation = "noop"', 'operation = "upscale"', 59, "route.1.tiers.0.idle: this provider does not run upscale"),
        ("tries = 5", "tries = 0", 51, "route.0.tries: Expected `int` >= 1"),
        ("tries = 5", "tries = 21", 51, "route.0.tries: Expected `int` <= 20"),
        ("deadline_s = 180", "deadline_s = 0", 52, "route.0.deadline_s: Expected `float` > 0.0"),
        ("max_usd = 0.02", "max_usd = 0", 53, "route.0.max_usd: Expected `float` > 0.0"),
        ("max_usd = 0.02", "max_usd = nan", 53, "route.0.max_usd: Expected `float` > 0.0"),
        ('on_reject = "next"', 'on_reject = "continue"', 54, "route.0.on_reject: has to be one of stop, next"),
        ("tries = 5", 'on_uncertain = "yes"', 51, "route.0.on_uncertain: has to be one of stop, next"),
        ("overflow_after_s = 5", "overflow_after_s = -5", 55, "route.0.overflow_after_s: Expected `float` > 0.0"),
        ("tries = 5", "retries = 5", 51, "route.0.retries: Object contains unknown field `retries`"),
        ('[[route]]\noperation = "noop"', '[[rout]]\noperation = "noop"', 57, "rout: Object contains unknown field"),
        ('[[route]]\noperation = "noop"', '[rout]\noperation = "noop"', 57, "unknown field `rout`"),
        ("tries = 5", "tries = = 5", 51, "Invalid value"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_reason(was: str, now: str, line: int, reason: str) -> None:
    """The whole file is checked at start; the error names file, line and what to do."""
    assert was in GOOD
    error = refusal(GOOD.replace(was, now))
    assert reason in str(error)
    assert (error.file, error.line) == ("lethe.toml", line), str(error)


def test_an_operation_has_one_route() -> None:
    """A second route for the same operation is refused where it stands."""
    error = refusal(GOOD + '\n[[route]]\noperation = "noop"\ntiers = [{ idle = 1 }]\n')
    assert str(error) == "lethe.toml:62: route.2.operation: noop has a route already"


@pytest.mark.parametrize(
    "text",
    ["", "[provider]\n", "route = []\n", 'provider = "gpu"\nroute = []\n', "route = []\n[provider]\ngpu = 1\n"],
)
def test_a_file_without_its_parts_is_refused(text: str) -> None:
    """Providers and routes both have to be written down, as tables."""
    assert refusal(text).file == "lethe.toml"


def test_an_adapter_of_one_picture_takes_no_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template may name as many pictures as the operation has, so that what is asked for can be given."""
    acme(monkeypatch, Terms(takes=Takes.FILE, operations=ACME.operations, exposure=ACME.exposure))
    edit = GOOD.replace("[provider.acme.operation.upscale]", "[provider.acme.operation.edit]").replace(
        "gpu = 9, ac", ""
    )
    for n in (1, 16):
        text = edit.replace(UPSCALE, f'input = {{ image = "$image{n}", prompt = "$prompt" }}')
        assert "route.0.tiers.0.me" in str(refusal(text)), "nothing else is wrong with it"
    error = refusal(edit.replace(UPSCALE, 'input = { image = "$image17", prompt = "$prompt" }'))
    assert "$image17 is nothing that edit is given" in error.reason
