"""The papers for stores and authorities: each parses as what it is, and each follows the settings."""

import csv
import io
import plistlib
import re
from typing import Any

import msgspec
import pytest

from broker.notices import apple, google
from broker.notices.collected import Kind, Use, collected
from broker.notices.documents import HAS_LANGUAGES, Format, document
from broker.notices.facts import COUNTER_S, NoticeFacts
from broker.notices.records import schedule
from broker.notices.registry import registry
from broker.notices.texts import LANGUAGES
from broker.notifications import Channel
from tests.notices import facts_in_house, facts_outside

PUSH = '[consent]\noptional = ["push", "marketing", "analytics"]'
DELETION = '[publisher]\ndeletion_url = "https://studio.example/delete"'
# The values that Apple documents for what we declare (Describing data use in privacy manifests).
APPLE_TYPES = {"PhotosorVideos", "OtherUserContent", "UserID", "ProductInteraction", "PurchaseHistory", "DeviceID"}
PRICED = "[credits]\nprices = { upscale = 2 }"
APPLE_PURPOSES = {
    *("ThirdPartyAdvertising", "DeveloperAdvertising", "Analytics", "ProductPersonalization", "AppFunctionality"),
    "Other",
}


def manifest(facts: NoticeFacts) -> dict[str, Any]:
    return plistlib.loads(document(Format.APPLE, facts).content)


def declared(facts: NoticeFacts) -> dict[str, list[str]]:
    """Of each data type in the manifest its purposes, without their prefixes."""
    prefix = "NSPrivacyCollectedDataType"
    return {
        one[prefix].removeprefix(prefix): [p.removeprefix(f"{prefix}Purpose") for p in one[f"{prefix}Purposes"]]
        for one in manifest(facts)["NSPrivacyCollectedDataTypes"]
    }


def form(facts: NoticeFacts) -> dict[tuple[str, str], str]:
    """The answers of the data-safety form by question and response."""
    text = document(Format.GOOGLE, facts).content.decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert tuple(header) == google.HEADER
    assert all(len(row) == len(header) for row in rows)
    answers = {(row[0], row[1]): row[2] for row in rows}
    assert len(answers) == len(rows)
    return answers


def ticked(facts: NoticeFacts, question: str) -> set[str]:
    return {response for (name, response), value in form(facts).items() if name == question and value == "true"}


def text_of(form_: Format, facts: NoticeFacts, language: str = "en") -> str:
    return document(form_, facts, demands=("seccomp",), language=language).content.decode()


def test_the_privacy_manifest_is_a_property_list() -> None:
    """Apple's four keys; each data type with its four, of documented values alone; nothing tracks."""
    info = manifest(facts_outside(PUSH))
    assert info.keys() == {
        "NSPrivacyTracking",
        "NSPrivacyTrackingDomains",
        "NSPrivacyCollectedDataTypes",
        "NSPrivacyAccessedAPITypes",
    }
    assert (info["NSPrivacyTracking"], info["NSPrivacyTrackingDomains"]) == (False, [])
    prefix = "NSPrivacyCollectedDataType"
    for one in info["NSPrivacyCollectedDataTypes"]:
        assert one.keys() == {prefix, f"{prefix}Linked", f"{prefix}Tracking", f"{prefix}Purposes"}
        assert (one[f"{prefix}Linked"], one[f"{prefix}Tracking"]) == (True, False)
    found = declared(facts_outside(PUSH, PRICED))
    assert found.keys() == APPLE_TYPES
    assert {purpose for purposes in found.values() for purpose in purposes} <= APPLE_PURPOSES


def test_the_manifest_follows_the_settings() -> None:
    """Push, messages and counts that are asked for, and what users type, are there when the settings say so."""
    plain = declared(facts_in_house())
    assert plain == {
        "PhotosorVideos": ["AppFunctionality"],
        "OtherUserContent": ["AppFunctionality"],
        "UserID": ["AppFunctionality"],
        "ProductInteraction": ["AppFunctionality"],
    }
    asking = declared(facts_in_house(PUSH))
    assert asking["DeviceID"] == ["AppFunctionality", "DeveloperAdvertising"]
    assert asking["ProductInteraction"] == ["AppFunctionality", "Analytics"]
    sealed = declared(msgspec.structs.replace(facts_in_house(), are_outputs_sealed=True))
    assert sealed["DeviceID"] == ["AppFunctionality"]
    upscale_alone = msgspec.structs.replace(facts_in_house(), has_texts=False)
    assert "OtherUserContent" not in declared(upscale_alone)


def test_the_label_answers_follow_the_settings() -> None:
    """The same data types as the manifest, in the words of App Store Connect; partners and times by the settings."""
    facts = facts_outside(PUSH, PRICED, outputs_for_s="7_200")
    text = text_of(Format.APPLE_LABELS, facts)
    for one in collected(facts):
        assert f"| {apple.TYPES[one.kind][1]} |" in text
    assert "`acme` (api.acme.example) is a partner" in text
    assert "kept: 2 hours" in text
    plain = text_of(Format.APPLE_LABELS, facts_in_house())
    assert "No partner gets" in plain
    assert "Device ID" not in plain
    assert "kept: 1 hour" in plain


def test_the_data_safety_form_is_whole() -> None:
    """Every data type of the form has its row; what is collected has every question on its use, and one answer each."""
    facts = facts_outside(PUSH, PRICED)
    answers = form(facts)
    types = {
        (f"PSL_DATA_TYPES_{question}", f"PSL_{name}") for question, names in google.TYPES.items() for name in names
    }
    assert types <= answers.keys()
    chosen = {response for question, response in types if answers[question, response] == "true"}
    assert chosen == {f"PSL_{google.NAMES[one.kind]}" for one in collected(facts)}
    for name in chosen:
        prefix = f"PSL_DATA_USAGE_RESPONSES:{name}"
        assert ticked(facts, f"{prefix}:PSL_DATA_USAGE_COLLECTION_AND_SHARING")
        assert answers[f"{prefix}:PSL_DATA_USAGE_EPHEMERAL", ""] == "false"
        assert len(ticked(facts, f"{prefix}:DATA_USAGE_USER_CONTROL")) == 1
        assert ticked(facts, f"{prefix}:DATA_USAGE_COLLECTION_PURPOSE")
    asked = {question.split(":")[1] for question, _ in answers if question.startswith("PSL_DATA_USAGE_RESPONSES:")}
    assert asked == chosen
    assert set(answers.values()) <= {"", "true", "false"} | {facts.publisher.deletion_url}
    assert b"\r\n" in document(Format.GOOGLE, facts).content


def test_the_data_safety_form_follows_the_settings() -> None:
    """What a provider may keep for itself is shared; who asks for push collects a device id, which is optional."""
    photos = "PSL_DATA_USAGE_RESPONSES:PSL_PHOTOS:PSL_DATA_USAGE_COLLECTION_AND_SHARING"
    collected_, shared = "PSL_DATA_USAGE_ONLY_COLLECTED", "PSL_DATA_USAGE_ONLY_SHARED"
    assert ticked(facts_in_house(), photos) == {collected_}
    assert ticked(facts_outside(), photos) == {collected_, shared}
    assert ticked(facts_outside(exposure='"ephemeral"'), photos) == {collected_}
    sharing = "PSL_DATA_USAGE_RESPONSES:PSL_PHOTOS:DATA_USAGE_SHARING_PURPOSE"
    assert (ticked(facts_in_house(), sharing), ticked(facts_outside(), sharing)) == (set(), {"PSL_APP_FUNCTIONALITY"})
    assert ticked(facts_in_house(), "PSL_DATA_TYPES_IDENTIFIERS") == set()
    assert ticked(facts_in_house(PUSH), "PSL_DATA_TYPES_IDENTIFIERS") == {"PSL_DEVICE_ID"}
    control = "PSL_DATA_USAGE_RESPONSES:PSL_DEVICE_ID:DATA_USAGE_USER_CONTROL"
    assert ticked(facts_in_house(PUSH), control) == {"PSL_DATA_USAGE_USER_CONTROL_OPTIONAL"}


@pytest.mark.parametrize(
    ("facts", "answer"),
    [
        (facts_in_house(), "DATA_DELETION_NO_AUTO_DELETED"),
        (facts_in_house(idle_user_for_s="7_776_001"), "DATA_DELETION_NO"),
        (facts_in_house(DELETION, idle_user_for_s="7_776_001"), "DATA_DELETION_YES"),
        (msgspec.structs.replace(facts_in_house(), outputs="until_deleted"), "DATA_DELETION_NO"),
        (facts_outside(), "DATA_DELETION_NO_AUTO_DELETED"),
    ],
)
def test_deletion_is_answered_by_what_is_kept(facts: NoticeFacts, answer: str) -> None:
    """Within 90 days all is gone by itself; longer, and it takes a page on which users ask for it."""
    assert ticked(facts, "PSL_SUPPORT_DATA_DELETION_BY_USER") == {answer}
    assert form(facts)["PSL_DATA_DELETION_URL", ""] == facts.publisher.deletion_url


def test_the_record_of_processing_has_every_letter_of_the_article() -> None:
    """GDPR Art. 30(1) (a) to (g); what nobody told Lethe is marked."""
    text = text_of(Format.ARTICLE_30, facts_in_house())
    for letter in "abcdefg":
        assert f"({letter})" in text
    assert "to be filled in" in text
    assert "`seccomp`" in text
    assert "no transfer to a third country" in text


def test_the_record_of_processing_follows_the_settings() -> None:
    """Controller, recipients with place and terms, legal basis and times."""
    asking = '[consent]\nrequired = ["processing"]\noptional = ["push"]'
    published = '[publisher]\nname = "Studio"\naddress = "Istanbul"\nemail = "a@b.example"\napp = "Foto"\nregion = "EU"'
    text = text_of(Format.ARTICLE_30, facts_outside(asking, published, records_for_s="86_400"))
    for words in (
        *("Name: Studio", "consent (6(1)(a))", "receipts 1 day after", "push notifications"),
        "| acme (api.acme.example) | United States | logged | 90 days |",
        "`region` in lethe.toml",
    ):
        assert words in text
    assert "contract (6(1)(b))" not in text
    assert "7 days" not in text
    assert "accounts of credits" not in text
    assert "accounts of credits" in text_of(Format.ARTICLE_30, facts_in_house(PRICED))


def test_the_retention_schedule_lists_everything_with_the_profiles_times() -> None:
    """Every name of the registry; no setting's name stands where a time should."""
    text = schedule(facts_in_house(records_for_s="86_400"))
    for kept in registry():
        assert all(f"`{name}`" in text for name in kept.names)
    assert "1 day (`records_for_s`) after the job is final" in text
    assert not re.search(r"\| (records|idle_user|outputs)_for_s", text)
    assert "7 days (`records_for_s`)" in schedule(facts_in_house())


def test_the_registry_says_the_same_of_the_counter() -> None:
    """The notice names ten minutes, which is what Redis is told."""
    assert next(kept.max_age_s for kept in registry() if "lethe:mint:*" in kept.names) == COUNTER_S


@pytest.mark.parametrize("form_", list(Format))
def test_a_changed_setting_changes_every_paper(form_: Format) -> None:
    """One set of settings, one of another: no paper stays as it was; the same settings make the same paper."""
    before, after = facts_in_house(), facts_outside(PUSH, DELETION, outputs_for_s="7_200")
    for language in LANGUAGES if form_ in HAS_LANGUAGES else LANGUAGES[:1]:
        assert text_of(form_, before, language) == text_of(form_, facts_in_house(), language)
        assert text_of(form_, before, language) != text_of(form_, after, language)


def test_both_stores_have_a_word_for_everything() -> None:
    """Every kind and every use."""
    assert set(apple.TYPES) == set(google.NAMES) == set(Kind)
    assert set(apple.USES) == set(google.USES) == set(Use)
    assert {apple.TYPES[kind][0] for kind in Kind} == APPLE_TYPES
    names = {name for names in google.TYPES.values() for name in names}
    assert set(google.NAMES.values()) <= names


def test_the_papers_tell_of_notifications() -> None:
    """A push token is a device's id for both stores, and an activity of the record, with who gets it."""
    silent = facts_in_house()
    told = msgspec.structs.replace(silent, channels=tuple(Channel))
    assert "DeviceID" not in declared(silent)
    assert declared(told)["DeviceID"] == ["AppFunctionality"]
    assert ticked(told, "PSL_DATA_TYPES_IDENTIFIERS") == {"PSL_DEVICE_ID"}
    line = "telling that a job has ended"
    assert line not in text_of(Format.ARTICLE_30, silent)
    (row,) = [row for row in text_of(Format.ARTICLE_30, told).splitlines() if line in row]
    assert "the app's own server, Google (Firebase Cloud Messaging), Apple" in row
    assert "at most 4 days" in row
