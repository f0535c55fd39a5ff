"""Single policies, profiles, and the file reader that says where a file is wrong."""

from pathlib import Path

import msgspec
import pytest

from policies.base import Admit, Destroy, Ending, Facts, ProviderTerms, RefusalCode, Refuse, Retain
from policies.deadlines import Deadlines
from policies.disclosure import Disclosure
from policies.ephemeral import Ephemeral
from policies.limits import Limits
from policies.metadata import Metadata, Strip
from policies.registry import Policies, Profile, load_profile, profile_names, read_profile
from policies.retention import DAY_S, Outputs, Retention
from policies.toml_file import ConfigInvalid, TomlFile, TomlPath
from providers.base import Exposure
from tests.profiles import MINIMAL

WORDS = {"consent", "publisher", "credits", "rights"}  # to agree to, who answers, costs, days: none opens a door


def code_of(answer: object) -> str | None:
    return answer.code if isinstance(answer, Refuse) else None


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (Facts(operation="upscale", upload_bytes=25_000_000), None),
        (Facts(operation="upscale", upload_bytes=25_000_001), "upload_too_large"),
        (Facts(operation="upscale", width=10_000, height=5_000), None),
        (Facts(operation="upscale", width=20_000, height=10_000), "unsupported_image"),
        (Facts(operation="upscale", output_pixels=64_000_000), None),
        (Facts(operation="upscale", output_pixels=64_000_001), "output_too_large"),
        (Facts(operation="upscale", live_jobs=7), None),
        (Facts(operation="upscale", live_jobs=8), "too_many_requests"),
        (Facts(operation="upscale", jobs_last_minute=59), None),
        (Facts(operation="upscale", jobs_last_minute=60), "too_many_requests"),
    ],
)
def test_a_limit_holds_to_the_last_unit(facts: Facts, code: str | None) -> None:
    """What is at a limit enters, what is one over it does not."""
    assert code_of(Limits().admit(facts)) == code


def test_a_refusal_for_size_says_both_numbers() -> None:
    """Admission refuses an output that is too large with the numbers."""
    refusal = Limits(max_output_pixels=1_000).admit(Facts(operation="upscale", output_pixels=2_345))
    assert refusal is not None
    assert "2345" in refusal.reason
    assert "1000" in refusal.reason


def test_a_full_user_is_told_when_to_come_back() -> None:
    """Too many requests always carries a time."""
    limits = Limits()
    answers = [
        limits.admit(Facts(operation="upscale", live_jobs=99)),
        limits.admit(Facts(operation="upscale", jobs_last_minute=999)),
        limits.admit_user(30),
    ]
    assert all(answer is not None and answer.retry_after_s > 0 for answer in answers)
    assert limits.admit_user(29) is None


@pytest.mark.parametrize(
    ("asked_start_s", "asked_finish_s", "start_s", "finish_s"),
    [
        (None, None, 300, 600),
        (10, None, 10, 600),
        (None, 60, 60, 60),
        (100_000, 100_000, 300, 600),
        (float("nan"), float("nan"), 300, 600),
    ],
)
def test_a_client_can_only_shorten_a_deadline(
    asked_start_s: float | None, asked_finish_s: float | None, start_s: float, finish_s: float
) -> None:
    """A longer wish is cut to the profile's, and a job never has longer to start than to finish."""
    facts = Facts(operation="upscale", start_within_s=asked_start_s, finish_within_s=asked_finish_s)
    assert Deadlines().within(facts) == Admit(start_within_s=start_s, finish_within_s=finish_s)


def test_work_that_cannot_end_in_time_is_refused_with_the_numbers() -> None:
    """An expected time beyond the deadline is refused, with a pointer where the client's own wish is the reason."""
    own = Deadlines().admit(Facts(operation="upscale", expected_s=90, finish_within_s=45))
    profile = Deadlines().admit(Facts(operation="upscale", expected_s=900))
    assert own is not None
    assert profile is not None
    assert (own.code, own.pointer) == (RefusalCode.DEADLINE_TOO_SHORT, "#/headers/Lethe-Finish-Within")
    assert "90 s" in own.reason
    assert "45 s" in own.reason
    assert profile.pointer == ""
    assert Deadlines().admit(Facts(operation="upscale", expected_s=600)) is None


@pytest.mark.parametrize("asked_s", [0, -5])
def test_a_deadline_that_has_passed_already_is_refused(asked_s: float) -> None:
    """No job is admitted only to expire."""
    assert code_of(Deadlines().admit(Facts(operation="upscale", start_within_s=asked_s))) == "deadline_too_short"
    assert code_of(Deadlines().admit(Facts(operation="upscale", finish_within_s=asked_s))) == "deadline_too_short"


@pytest.mark.parametrize(
    ("exposure", "retention_s", "is_allowed"),
    [
        (Exposure.LOCAL, 0, True),
        (Exposure.EPHEMERAL, 60, True),
        (Exposure.EPHEMERAL, 61, False),
        (Exposure.LOGGED, 0, False),
        (Exposure.PUBLIC, 0, False),
    ],
)
def test_disclosure_is_a_hard_limit_on_exposure_and_stay(
    exposure: Exposure, retention_s: int, *, is_allowed: bool
) -> None:
    """A provider that shows or keeps more than the profile allows is refused."""
    policy = Disclosure(exposure=Exposure.EPHEMERAL, max_provider_retention_s=60)
    terms = ProviderTerms(exposure=exposure, retention_s=retention_s)
    assert (policy.disclose(Facts(operation="upscale"), terms) is None) is is_allowed


def test_only_a_picture_rebuilt_from_pixels_leaves() -> None:
    """A file as the user sent it goes to models of ours alone."""
    outside = ProviderTerms(exposure=Exposure.EPHEMERAL, retention_s=0)
    inside = ProviderTerms(exposure=Exposure.LOCAL, retention_s=0)
    assert code_of(Metadata().disclose(Facts(operation="upscale"), outside)) == "refused"
    assert Metadata().disclose(Facts(operation="upscale", is_clean=True), outside) is None
    assert Metadata().disclose(Facts(operation="upscale"), inside) is None


def test_the_minimal_profile_keeps_pictures_in_house_and_forgets() -> None:
    """minimal-2, minimal-5: nothing leaves, results for an hour, records for a week, idle users for a month."""
    policies = Policies(load_profile("minimal"))
    outside = ProviderTerms(exposure=Exposure.EPHEMERAL, retention_s=0)
    assert code_of(policies.disclose(Facts(operation="upscale", is_clean=True), outside)) == "refused"
    assert policies.retain(Facts(operation="upscale")) == Retain(lifetime_s=3_600, records_for_s=7 * 86_400)
    assert policies.profile.retention.idle_user_for_s == 30 * 86_400
    assert policies.admit(Facts(operation="upscale")) == Admit(start_within_s=300, finish_within_s=600)


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "canceled", "expired", "anything"])
def test_settle_destroys_the_upload_whatever_the_outcome(outcome: str) -> None:
    """core-2: the upload and what the user typed go; outputs stay only when the job succeeded."""
    demand = Policies(load_profile("minimal")).settle(Ending(outcome=outcome))
    assert demand == Destroy(uploads=True, parameters=True, outputs=outcome != "succeeded")


def test_of_two_demands_the_stricter_holds() -> None:
    """Composition adds up what is destroyed and takes the shorter of two times."""
    assert Destroy(uploads=True).also(Destroy(outputs=True)) == Destroy(uploads=True, outputs=True)
    shorter = Retain(lifetime_s=5, records_for_s=90).at_most(Retain(lifetime_s=9, records_for_s=60))
    assert shorter == Retain(lifetime_s=5, records_for_s=60)
    kept, fleeting = Retain(lifetime_s=None, records_for_s=9), Retain(lifetime_s=7, records_for_s=9, grace_s=3)
    assert kept.at_most(fleeting) == fleeting.at_most(kept) == fleeting
    assert kept.at_most(kept) == kept


def test_every_shipped_profile_loads_under_its_own_name() -> None:
    """Validated whole at start."""
    assert "minimal" in profile_names()
    assert [load_profile(name).name for name in profile_names()] == profile_names()


def test_an_operator_may_bring_a_profile(tmp_path: Path) -> None:
    """A path that ends in .toml is loaded as it is."""
    path = tmp_path / "studio.toml"
    path.write_text(MINIMAL.replace('"minimal"', '"studio"'))
    assert load_profile(str(path)).name == "studio"


@pytest.mark.parametrize("name", ["nobody", "../minimal", "", "/nowhere/at/all.toml"])
def test_an_unknown_profile_is_refused(name: str) -> None:
    """A name that is not shipped and a file that is not there end the start with a reason."""
    with pytest.raises(ConfigInvalid):
        load_profile(name)


@pytest.mark.parametrize(
    ("was", "now", "line", "reason"),
    [
        ("jobs_at_once = 8", "jobs_at_once = 0", 28, "limits.jobs_at_once: Expected `int` >= 1"),
        ("jobs_at_once = 8", "jobs_at_ones = 8", 28, "unknown field `jobs_at_ones`"),
        ("start_within_s = 300", 'start_within_s = "soon"', 6, "deadlines.start_within_s: Expected `int`, got `str`"),
        ("start_within_s = 300", "start_within_s = 601", 6, "is longer than finish_within_s"),
        ("outputs_for_s = 3_600 ", "outputs_for_s = 86_401 ", 11, "longer than 24 h, which needs sealed = true"),
        ("outputs_for_s = 3_600 ", "sealed = true\noutputs_for_s = 604_801 ", 13, "an output needs its record"),
        ('outputs = "for"', 'grace_s = 0\noutputs = "until_delivered"', 10, "retention.grace_s: Expected `int` >= 1"),
        ("records_for_s = 604_800 ", "records_for_s = 3_599 ", 12, "an output needs its record"),
        ("idle_user_for_s = 2_592_000", "idle_user_for_s = 86_400", 13, "a record needs its user"),
        ('exposure = "local"', 'exposure = "cosy"', 16, "Invalid enum value 'cosy'"),
        ('strip = "everything"', 'strip = "gps"', 20, "Invalid enum value 'gps'"),
        ('outputs = "for"', 'outputs = "until_deleted"', 10, "until_deleted needs sealed = true"),
        ('outputs = "for"', 'outputs = "forever"', 10, "Invalid enum value 'forever'"),
        ('outputs = "for"', 'sealed = "yes"\noutputs = "for"', 10, "retention.sealed: Expected `bool`, got `str`"),
        ("[disclosure]", "[discloser]", 15, "unknown field `discloser`"),
        ('name = "minimal"', "name = minimal", 3, "Invalid value"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_line(was: str, now: str, line: int, reason: str) -> None:
    """Unknown keys, wrong values and contradictions name file, line and reason."""
    assert was in MINIMAL
    with pytest.raises(ConfigInvalid) as caught:
        read_profile(TomlFile(MINIMAL.replace(was, now), name="p.toml"))
    assert (caught.value.file, caught.value.line) == ("p.toml", line)
    assert reason in str(caught.value)


def test_no_setting_weakens_the_guarantee() -> None:
    """What a profile may say is this and no more: nothing of uploads, one word for metadata, a day for open outputs.

    What it demands of a posture shuts the door or leaves it open; nothing is done otherwise for it.
    """
    tables = {field.name for field in msgspec.structs.fields(Profile)}
    assert tables == {"name", "limits", "deadlines", "metadata", "disclosure", "retention", "posture", *WORDS}
    assert not msgspec.structs.fields(Ephemeral)
    assert list(Strip) == [Strip.EVERYTHING]
    assert DAY_S == 86_400


@pytest.mark.parametrize("outputs", list(Outputs))
@pytest.mark.parametrize("is_sealed", [True, False, None])
def test_what_we_can_open_lives_a_day_at_most(outputs: Outputs, *, is_sealed: bool | None) -> None:
    """Also where the profile was another one when the job was taken in: only what is sealed may stay longer."""
    policy = Retention(outputs=outputs, outputs_for_s=100 * DAY_S, sealed=True)
    retained = policy.retain(Facts(operation="upscale", is_sealed=is_sealed))
    assert retained is not None
    expected_s = None if outputs is Outputs.UNTIL_DELETED else 100 * DAY_S
    assert retained.lifetime_s == (DAY_S if is_sealed is False else expected_s)
    assert retained.grace_s == (300 if outputs is Outputs.UNTIL_DELIVERED else None)


@pytest.mark.parametrize(
    ("is_sealed", "device_keys", "code"),
    [(True, 0, "device_key_required"), (True, 1, None), (True, None, None), (False, 0, None)],
)
def test_a_job_that_cannot_be_sealed_does_not_enter(*, is_sealed: bool, device_keys: int | None, code: str) -> None:
    """Never silently unsealed: no device, no job."""
    assert code_of(Retention(sealed=is_sealed).admit(Facts(operation="upscale", device_keys=device_keys))) == code


def test_a_profile_without_a_table_is_refused() -> None:
    """No policy is left to chance: its table has to be there."""
    with pytest.raises(ConfigInvalid, match="missing required field `limits`"):
        read_profile(TomlFile(MINIMAL.split("[limits]", maxsplit=1)[0], name="p.toml"))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """A binary or missing file gets a sentence, not a traceback."""
    path = tmp_path / "broken.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigInvalid, match="not UTF-8"):
        TomlFile.read(path)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        TomlFile.read(tmp_path / "absent.toml")


SCATTERED = """\
top = 1
"odd key".inner = 2

[a]
x = 3  # [not.a.header]
[a.b.c]
y = [
  { gpu = 9, other = 1 },
  { horde = 1 },
]
[[row]]
z = 4
[row.deep]
w = 5
[[row]]
z = 6
[row.deep]
w = 7
"""


@pytest.mark.parametrize(
    ("at", "line"),
    [
        (("top",), 1),
        (("odd key", "inner"), 2),
        (("a",), 4),
        (("a", "x"), 5),
        (("a", "absent"), 4),
        (("a", "b", "c"), 6),
        (("a", "b", "c", "y", 1, "horde"), 9),
        (("row", 0, "z"), 12),
        (("row", 0, "deep", "w"), 14),
        (("row", 1), 15),
        (("row", 1, "z"), 16),
        (("row", 1, "deep", "w"), 18),
        (("row",), 11),
        (("nowhere",), 0),
        ((), 0),
    ],
)
def test_a_place_in_a_file_has_its_line(at: TomlPath, line: int) -> None:
    """Tables, arrays of tables, dotted and quoted keys, and values over several lines are found."""
    assert TomlFile(SCATTERED, name="x.toml").line_of(at) == line


@pytest.mark.parametrize(("text", "line"), [("a = 1\nb = = 2\n", 2), ("a = 1\n\nb = [1,", 3), ("a = 1\na = 2\n", 2)])
def test_what_is_not_toml_is_refused_with_its_line(text: str, line: int) -> None:
    """A slip of the pen is found where it is."""
    with pytest.raises(ConfigInvalid) as caught:
        TomlFile(text, name="x.toml")
    assert caught.value.line == line


def test_profiles_and_policies_cannot_be_changed() -> None:
    """A profile that runs stays what was validated."""
    profile = load_profile("minimal")
    with pytest.raises(AttributeError):
        setattr(profile, "name", "other")  # noqa: B010 - a frozen struct refuses plain assignment to the type checker
    with pytest.raises(AttributeError):
        setattr(profile.limits, "jobs_at_once", 99)  # noqa: B010 - as above
    assert Profile.__struct_config__.forbid_unknown_fields
    assert isinstance(profile.retention, Retention)
    assert msgspec.structs.replace(profile.limits, jobs_at_once=1).jobs_at_once == 1
