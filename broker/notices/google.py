"""
For Google Play: the data-safety form as the CSV that the Play Console imports.

Five columns; one row for each question, or for each of its responses; a blank value is "not ticked". Ids and columns
are those that exports of the console have; Google's article 10787469 describes the import, and its sample is older.
"""

import csv
import io
from collections.abc import Iterator

from broker.notices.collected import Collected, Kind, Use, collected
from broker.notices.facts import NoticeFacts

HEADER = (
    "Question ID (machine readable)",
    "Response ID (machine readable)",
    "Response value",
    "Answer requirement",
    "Human-friendly question label",
)
DAYS_90_S = 90 * 86_400
Row = tuple[str, str, str, str, str]

TYPES: dict[str, tuple[str, ...]] = {
    "PERSONAL": (
        *("NAME", "EMAIL", "USER_ACCOUNT", "ADDRESS", "PHONE", "RACE_ETHNICITY", "POLITICAL_RELIGIOUS"),
        *("SEXUAL_ORIENTATION_GENDER_IDENTITY", "OTHER_PERSONAL"),
    ),
    "FINANCIAL": ("CREDIT_DEBIT_BANK_ACCOUNT_NUMBER", "PURCHASE_HISTORY", "CREDIT_SCORE", "OTHER"),
    "LOCATION": ("APPROX_LOCATION", "PRECISE_LOCATION"),
    "SEARCH_AND_BROWSING": ("WEB_BROWSING_HISTORY",),
    "EMAIL_AND_TEXT": ("EMAILS", "SMS_CALL_LOG", "OTHER_MESSAGES"),
    "PHOTOS_AND_VIDEOS": ("PHOTOS", "VIDEOS"),
    "AUDIO": ("AUDIO", "MUSIC", "OTHER_AUDIO"),
    "HEALTH_AND_FITNESS": ("HEALTH", "FITNESS"),
    "CONTACTS": ("CONTACTS",),
    "CALENDAR": ("CALENDAR",),
    "APP_PERFORMANCE": ("CRASH_LOGS", "PERFORMANCE_DIAGNOSTICS", "OTHER_PERFORMANCE"),
    "FILES_AND_DOCS": ("FILES_AND_DOCS",),
    "APP_ACTIVITY": (
        *("USER_INTERACTION", "IN_APP_SEARCH_HISTORY", "APPS_ON_DEVICE", "USER_GENERATED_CONTENT"),
        "OTHER_APP_ACTIVITY",
    ),
    "IDENTIFIERS": ("DEVICE_ID",),
}
"""Every data type of the form, by its question."""
NAMES = {
    Kind.PHOTOS: "PHOTOS",
    Kind.TEXTS: "USER_GENERATED_CONTENT",
    Kind.USER_ID: "USER_ACCOUNT",
    Kind.ACTIVITY: "USER_INTERACTION",
    Kind.PURCHASES: "PURCHASE_HISTORY",
    Kind.DEVICE_ID: "DEVICE_ID",
}
PURPOSES = (
    *("APP_FUNCTIONALITY", "ANALYTICS", "DEVELOPER_COMMUNICATIONS", "FRAUD_PREVENTION_SECURITY", "ADVERTISING"),
    *("PERSONALIZATION", "ACCOUNT_MANAGEMENT"),
)
USES = {
    Use.FUNCTION: "APP_FUNCTIONALITY",
    Use.SAFETY: "FRAUD_PREVENTION_SECURITY",
    Use.ANALYTICS: "ANALYTICS",
    Use.MARKETING: "ADVERTISING",
}
ACCOUNTS = ("USER_ID_PASSWORD", "USER_ID_OTHER_AUTH", "USER_ID_PASSWORD_OTHER_AUTH", "OAUTH", "OTHER", "NONE")
DELETIONS = ("DATA_DELETION_YES", "DATA_DELETION_NO", "DATA_DELETION_NO_AUTO_DELETED")


def data_safety(facts: NoticeFacts) -> str:
    """Write the form; lines end as those of the console's exports do."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(HEADER)
    writer.writerows(_rows(facts))
    return out.getvalue()


def deletion_of(facts: NoticeFacts) -> str:
    """Say whether users may ask for deletion: with a page for it yes, else only whether all is gone within 90 days."""
    if facts.publisher.deletion_url:
        return "DATA_DELETION_YES"
    longest_s = max(facts.longest_s, *(one.retention_s for one in facts.recipients), 0)
    is_soon = longest_s <= DAYS_90_S and not facts.are_outputs_kept
    return "DATA_DELETION_NO_AUTO_DELETED" if is_soon else "DATA_DELETION_NO"


def _rows(facts: NoticeFacts) -> Iterator[Row]:
    found = {NAMES[one.kind]: one for one in collected(facts)}
    yield from _general(facts)
    for question, names in TYPES.items():
        for name in names:
            label = f"Data types/{question}/{name}"
            yield _choice(f"PSL_DATA_TYPES_{question}", f"PSL_{name}", name in found, "MULTIPLE_CHOICE", label)
    for name, one in found.items():
        yield from _usage(f"PSL_DATA_USAGE_RESPONSES:PSL_{name}", one)


def _general(facts: NoticeFacts) -> Iterator[Row]:
    yield _value("PSL_DATA_COLLECTION_COLLECTS_PERSONAL_DATA", "true", "REQUIRED", "Is user data collected or shared?")
    yield _value("PSL_DATA_COLLECTION_ENCRYPTED_IN_TRANSIT", "true", "MAYBE_REQUIRED", "Is it encrypted in transit?")
    for method in ACCOUNTS:
        label = f"Account creation/{method}"
        question = "PSL_SUPPORTED_ACCOUNT_CREATION_METHODS"
        yield _choice(question, f"PSL_ACM_{method}", method == "NONE", "MULTIPLE_CHOICE", label)
    yield _value("PSL_ACM_SPECIFY", "", "MAYBE_REQUIRED", "Another account creation method")
    yield _value("PSL_ACCOUNT_DELETION_URL", "", "MAYBE_REQUIRED", "Page on which an account is deleted")
    for answer in DELETIONS:
        is_it = answer == deletion_of(facts)
        label = f"Can users ask for deletion?/{answer}"
        yield _choice("PSL_SUPPORT_DATA_DELETION_BY_USER", answer, is_it, "SINGLE_CHOICE", label)
    url = facts.publisher.deletion_url
    yield _value("PSL_DATA_DELETION_URL", url, "MAYBE_REQUIRED", "Page on which users ask for deletion")
    yield _value("PSL_DATA_COLLECTION_COMPLIES_FAMILY_POLICY", "", "OPTIONAL", "Families policy: not answered")
    yield _value("PSL_INDEPENDENTLY_VALIDATED", "", "OPTIONAL", "Independent security review: not answered")
    yield _value("PSL_UPI_BADGE_OPT_IN", "", "OPTIONAL", "UPI badge: not answered")
    yield _value("PSL_HAS_OUTSIDE_APP_ACCOUNTS", "false", "MAYBE_REQUIRED", "Accounts made outside the app?")


def _usage(prefix: str, one: Collected) -> Iterator[Row]:
    question = f"{prefix}:PSL_DATA_USAGE_COLLECTION_AND_SHARING"
    yield _choice(question, "PSL_DATA_USAGE_ONLY_COLLECTED", True, "MULTIPLE_CHOICE", "Collected")
    yield _choice(question, "PSL_DATA_USAGE_ONLY_SHARED", one.is_shared, "MULTIPLE_CHOICE", "Shared")
    ephemeral = f"{prefix}:PSL_DATA_USAGE_EPHEMERAL"
    yield _value(ephemeral, "false", "MAYBE_REQUIRED", "Processed ephemerally? (in memory alone, while it is answered)")
    control = f"{prefix}:DATA_USAGE_USER_CONTROL"
    for answer, is_it in (("OPTIONAL", one.is_optional), ("REQUIRED", not one.is_optional)):
        yield _choice(control, f"PSL_DATA_USAGE_USER_CONTROL_{answer}", is_it, "SINGLE_CHOICE", f"Control/{answer}")
    uses = {USES[use] for use in one.uses}
    for which, chosen in (("COLLECTION", uses), ("SHARING", {"APP_FUNCTIONALITY"} if one.is_shared else set[str]())):
        for purpose in PURPOSES:
            label = f"Why {which.lower()}?/{purpose}"
            question = f"{prefix}:DATA_USAGE_{which}_PURPOSE"
            yield _choice(question, f"PSL_{purpose}", purpose in chosen, "MULTIPLE_CHOICE", label)


def _choice(question: str, response: str, is_ticked: bool, requirement: str, label: str) -> Row:
    return question, response, "true" if is_ticked else "", requirement, label


def _value(question: str, value: str, requirement: str, label: str) -> Row:
    return question, "", value, requirement, label
