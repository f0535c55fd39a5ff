"""Notices are made of facts: every language says the same, and a changed setting changes the words."""

import re
import string
from html.parser import HTMLParser

import msgspec
import pytest

from broker.app import CLIENT_ROUTES
from broker.config import load_config
from broker.notices.facts import NoticeFacts, facts_of
from broker.notices.markup import markdown, page
from broker.notices.sections import prose, sections_of
from broker.notices.texts import LANGUAGES, Texts, texts_in
from broker.notifications import Channel
from broker.operations import OPERATIONS
from policies.consent import Purpose
from policies.registry import Policies, load_profile, profile_names
from policies.retention import Outputs
from providers.base import Deletes, Exposure
from tests.notices import facts_in_house, facts_outside, outside_config, policies_of

ASKING = '[consent]\nrequired = ["processing"]\noptional = ["push"]\nmin_age = 16\nannounce_days = 14'
PUBLISHED = """[publisher]
app = "Foto"
name = "Studio <b>Ğ</b>"
address = "Istanbul"
email = "privacy@studio.example"
officer = "Somebody"
authority = "KVKK"
region = "Frankfurt"
deletion_url = "https://studio.example/delete"
"""
SECTIONS = ("who", "what", "why", "how_long", "who_gets_it", "where", "safety", "rights", "deletion", "children")


def said(facts: NoticeFacts, language: str = "en") -> str:
    return "\n".join(prose(sections_of(facts, texts_in(language))))


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_the_same(language: str) -> None:
    """Each has every sentence of the English one, with the same placeholders, and words for all that is named."""
    english, other = texts_in("en"), texts_in(language)
    assert other.language == language
    assert other.sections.keys() == english.sections.keys()
    for name, sentences in english.sections.items():
        assert other.sections[name].keys() == sentences.keys(), name
        for key, sentence in sentences.items():
            assert placeholders(other.sections[name][key]) == placeholders(sentence), (name, key)
    assert other.operations.keys() == set(OPERATIONS)
    assert other.purposes.keys() == set(Purpose)
    assert other.units.keys() == {"second", "minute", "hour", "day"}
    for prefix, words in (("keeps_", Deletes), ("sees_", [one for one in Exposure if one is not Exposure.LOCAL])):
        assert {f"{prefix}{word}" for word in words} <= other.sections["who_gets_it"].keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_said_by_some_setting(language: str) -> None:
    """No sentence is dead, and none is left with a placeholder."""
    facts = (
        facts_in_house(),
        facts_outside(ASKING, PUBLISHED),
        facts_outside('[consent]\nrequired = ["providers"]', outputs_for_s="60"),
        facts_outside('[consent]\noptional = ["analytics"]', "[credits]\nprices = { upscale = 2 }"),
    )
    once = facts[1].recipients[0]
    kept = [msgspec.structs.replace(once, deletes=deletes, retention_s=60) for deletes in Deletes]
    seen = [msgspec.structs.replace(once, exposure=exposure, retention_s=0) for exposure in list(Exposure)[1:]]
    more = msgspec.structs.replace(facts[1], recipients=(*kept, *seen), blob_store="s3")
    modes = [msgspec.structs.replace(facts[0], outputs=mode) for mode in ("until_delivered", "until_deleted")]
    sealed = msgspec.structs.replace(facts[0], are_outputs_sealed=True, regions=("Frankfurt",), has_sign_in=True)
    told = msgspec.structs.replace(facts[0], channels=tuple(Channel))
    whole = "\n".join(said(one, language) for one in (*facts, more, *modes, sealed, told))
    assert not re.search(r"[{}]", whole)
    for section, sentences in texts_in(language).sections.items():
        for name, sentence in sentences.items():
            pieces = [piece.strip() for piece in re.split(r"\{\w+\}", sentence)]
            assert all(piece in whole for piece in pieces), (section, name)


def test_every_question_is_answered() -> None:
    """Who, what, why, how long, who gets it, where, rights, deletion, children; and contact at the end."""
    ids = [section.id for section in sections_of(facts_in_house(), texts_in("en"))]
    assert ids == [*SECTIONS, "changes", "contact"]
    assert "consents" in [section.id for section in sections_of(facts_in_house(ASKING), texts_in("en"))]


def test_the_minimal_profile_says_what_it_does() -> None:
    """minimal-2, minimal-5, m2r-10: nobody gets pictures, all has its time, removing the app deletes nothing."""
    text = said(facts_in_house())
    for words in (
        "destroyed before the job is shown as finished",
        "1 hour after they were made",
        "7 days after the job has ended",
        "30 days after the day on which it was last used",
        "not passed on to third parties",
        "When you remove the app from your phone",
        "forgotten after 10 minutes",
    ):
        assert words in text


@pytest.mark.parametrize("name", profile_names())
def test_what_a_notice_says_is_true_of_each_profile(name: str) -> None:
    """Sealed keys, devices, the grace, the end of an idle gallery and what providers are told: where it is so alone."""
    policies = Policies(load_profile(name))
    retention = policies.profile.retention
    in_house, outside = (facts_of(policies, config) for config in (load_config(), outside_config()))
    text = said(in_house)
    for words in ("a form that your devices alone can open", "Public keys of your devices", "removed from all of them"):
        assert (words in text) is retention.sealed
    assert ("Keys are held in the memory of a separate process only" in text) is not retention.sealed
    grace = f"until {texts_in('en').lasting(retention.grace_s)} after your app has received them"
    assert (grace in text) is (retention.outputs is Outputs.UNTIL_DELIVERED)
    idle = f"or was not used for {texts_in('en').lasting(retention.idle_user_for_s)}"
    assert (idle in text) is (retention.outputs is Outputs.UNTIL_DELETED)
    for facts in (in_house, outside):
        assert ("it is told to delete" in said(facts)) is bool(facts.recipients)


def test_every_call_that_a_notice_names_is_there() -> None:
    """Under /v1/me, by the same verb, in every language."""
    routes = {(str(verb), path) for handler in CLIENT_ROUTES for path in handler.paths for verb in handler.http_methods}
    for language in LANGUAGES:
        calls = re.findall(r"(GET|PUT|POST|DELETE) (/v1/[a-z/]+)", texts_in(language).sections["rights"]["calls"])
        assert len(calls) == 8
        assert set(calls) <= routes


def test_a_sign_in_is_told_of_where_there_may_be_one() -> None:
    """m2r-8: what is kept of it, and for how long, where LETHE_SUBJECT_KEY_FILE is set; the one cookie everywhere."""
    without, with_it = facts_in_house(), msgspec.structs.replace(facts_in_house(), has_sign_in=True)
    assert without.digest != with_it.digest
    assert "if you sign in to the app" not in said(without)
    assert "if you sign in to the app" in said(with_it)
    assert "We set no other cookie" in said(without)


def test_regions_are_named() -> None:
    """Where alone pictures may be is said when the profile says it."""
    facts = msgspec.structs.replace(facts_in_house(), regions=("Frankfurt", "Dublin"))
    assert "in these places alone: Frankfurt and Dublin." in said(facts)
    assert "in these places alone" not in said(facts_in_house())


@pytest.mark.parametrize(
    ("changed", "gone", "come"),
    [
        ({"outputs_for_s": "7_200"}, "1 hour after", "2 hours after"),
        ({"records_for_s": "86_400"}, "7 days after", "1 day after the job"),
        ({"idle_user_for_s": "5_184_000"}, "30 days", "60 days"),
        ({"finish_within_s": "660"}, "at most 10 minutes", "at most 11 minutes"),
    ],
)
def test_a_changed_setting_changes_the_words(changed: dict[str, str], gone: str, come: str) -> None:
    """And the digest of the facts with them."""
    before, after = facts_in_house(), facts_in_house(**changed)
    assert gone in said(before)
    assert come not in said(before)
    assert come in said(after)
    assert before.digest != after.digest == facts_in_house(**changed).digest


def test_consent_and_the_publisher_are_in_the_words() -> None:
    """Purposes with what they mean, the age, the days of notice, and whoever answers."""
    text = said(facts_in_house(ASKING, PUBLISHED))
    for words in (
        *("Working on your pictures (needed)", "Push notifications (up to you)", "under 16", "14 days before"),
        *("your consent (GDPR Art. 6(1)(a))", "Studio <b>", "privacy@studio.example", "Frankfurt", "KVKK"),
        "https://studio.example/delete",
    ):
        assert words in text
    assert "performance of the contract" not in text


def test_who_gets_what_is_named() -> None:
    """Providers that the profile allows, where they are, how long they keep it, who may look; not our own servers."""
    facts = facts_outside()
    text = said(facts)
    assert [one.name for one in facts.recipients] == ["acme", "cloud"]
    assert "acme (api.acme.example): for making a picture move. Copies stay there for at most 90 days" in text
    assert "acme: United States." in text
    assert "cloud: its place is not known to us" in text
    assert "not passed on to third parties" not in text
    assert "results may be videos" in text
    assert "127.0.0.1" not in text


def test_who_is_not_allowed_is_not_named() -> None:
    """A provider that the profile shuts out gets nothing, and its operation is not offered."""
    facts = facts_outside(exposure='"ephemeral"')
    assert [one.name for one in facts.recipients] == ["cloud"]
    assert facts.operations == ("upscale", "remove_background")
    assert not facts.has_videos


def test_facts_outlive_their_release() -> None:
    """They are stored, and an old notice is shown from what was stored."""
    facts = facts_outside(ASKING, PUBLISHED)
    stored = msgspec.json.encode(facts)
    assert msgspec.json.decode(stored, type=NoticeFacts) == facts
    assert policies_of(ASKING).profile.consent.announce_days == facts.announce_days


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_documents_are_whole_and_safe(language: str) -> None:
    """Every sentence is in both, every tag is closed, and nothing that an operator wrote is markup."""
    facts, texts = facts_outside(ASKING, PUBLISHED), texts_in(language)
    parser = _Balanced()
    parser.feed(page(facts, texts))
    assert not parser.open
    assert parser.language == language
    assert "".join(parser.text.split()) == "".join([texts.title * 2, *prose(sections_of(facts, texts))]).replace(
        " ", ""
    )
    plain = markdown(facts, texts)
    assert plain.count("\n## ") == len(sections_of(facts, texts))
    assert "<b>" not in plain.replace("\\<", "")


class _Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.language: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "b"
        self.language = dict(attrs).get("lang") or self.language
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("seconds", "english", "turkish"),
    [
        (1, "1 second", "1 saniye"),
        (90, "90 seconds", "90 saniye"),
        (3_600, "1 hour", "1 saat"),
        (172_800, "2 days", "2 gün"),
    ],
)
def test_times_are_said_exactly(seconds: int, english: str, turkish: str) -> None:
    """In the largest unit that needs no fraction."""
    words: list[Texts] = [texts_in("en"), texts_in("tr")]
    assert [one.lasting(seconds) for one in words] == [english, turkish]


def test_who_is_told_is_named_where_somebody_is() -> None:
    """Where no key and no account is, not a word; else what is kept, how long, and who gets what."""
    silent, words = (
        said(facts_in_house()),
        ("Firebase", "Apple gets the address", "app’s own server", "Addresses for notifications"),
    )
    assert not any(word in silent for word in words)
    assert "address of your device" not in silent
    told = msgspec.structs.replace(facts_in_house(), channels=tuple(Channel))
    text = said(told)
    assert all(word in text for word in words)
    assert "where the app sends one with a job" in text
    assert "at most 4 days" in text
    asked = said(msgspec.structs.replace(facts_in_house(ASKING), channels=(Channel.FCM,)))
    assert "for push notifications, if you agree to them" in asked
    assert "for push notifications, where the app sends one" not in asked
