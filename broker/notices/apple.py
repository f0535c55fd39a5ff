"""For Apple: the privacy manifest PrivacyInfo.xcprivacy, and answers for the privacy label in App Store Connect."""

import plistlib
from collections.abc import Iterator

from broker.notices.collected import Collected, Kind, Use, collected, results_kept
from broker.notices.facts import NoticeFacts
from broker.notices.texts import DEFAULT, texts_in

TYPE_PREFIX = "NSPrivacyCollectedDataType"
PURPOSE_PREFIX = "NSPrivacyCollectedDataTypePurpose"

TYPES: dict[Kind, tuple[str, str]] = {
    Kind.PHOTOS: ("PhotosorVideos", "User Content: Photos or Videos"),
    Kind.TEXTS: ("OtherUserContent", "User Content: Other User Content"),
    Kind.USER_ID: ("UserID", "Identifiers: User ID"),
    Kind.ACTIVITY: ("ProductInteraction", "Usage Data: Product Interaction"),
    Kind.PURCHASES: ("PurchaseHistory", "Purchases: Purchase History"),
    Kind.DEVICE_ID: ("DeviceID", "Identifiers: Device ID"),
}
"""The manifest's value and the label's words."""
USES: dict[Use, tuple[str, str]] = {
    Use.FUNCTION: ("AppFunctionality", "App Functionality"),
    Use.SAFETY: ("AppFunctionality", "App Functionality"),  # Apple counts fraud prevention and security among it
    Use.ANALYTICS: ("Analytics", "Analytics"),
    Use.MARKETING: ("DeveloperAdvertising", "Developer’s Advertising or Marketing"),
}


def privacy_info(facts: NoticeFacts) -> bytes:
    """
    Write the manifest, an XML property list.

    It says what is sent to Lethe. `NSPrivacyAccessedAPITypes` is about the app's own code, and empty for its authors.
    """
    manifest = {
        "NSPrivacyTracking": False,
        "NSPrivacyTrackingDomains": list[str](),
        "NSPrivacyCollectedDataTypes": [_declared(one) for one in collected(facts)],
        "NSPrivacyAccessedAPITypes": list[str](),
    }
    return plistlib.dumps(manifest, sort_keys=False)


def labels(facts: NoticeFacts) -> str:
    """Write the answers to the questions of App Store Connect, as Markdown."""
    return "\n".join(_lines(facts))


def _declared(one: Collected) -> dict[str, object]:
    return {
        TYPE_PREFIX: f"{TYPE_PREFIX}{TYPES[one.kind][0]}",
        f"{TYPE_PREFIX}Linked": True,
        f"{TYPE_PREFIX}Tracking": False,
        f"{TYPE_PREFIX}Purposes": [f"{PURPOSE_PREFIX}{name}" for name in _unique(one, 0)],
    }


def _lines(facts: NoticeFacts) -> Iterator[str]:
    texts = texts_in(DEFAULT)
    yield "# Answers for the privacy label (App Store Connect, App Privacy)\n"
    yield f"From the profile `{facts.profile}`. They say what is sent to Lethe; add what the app itself collects.\n"
    yield "- Do you or your third-party partners collect data from this app? **Yes**"
    yield "- Is data used to track users? **No**, none of it"
    yield f"- Privacy policy URL: the page on which the notice is published{_where(facts)}\n"
    yield "| data type | purposes | linked to the user | used to track | what it is |"
    yield "|---|---|---|---|---|"
    for one in collected(facts):
        uses = ", ".join(_unique(one, 1))
        yield f"| {TYPES[one.kind][1]} | {uses} | Yes | No | {one.because} |"
    yield ""
    yield "## Why these answers\n"
    kept = results_kept(facts)
    yield f"- Pictures count as collected: an upload lies encrypted until its job ends; results are kept: {kept}."
    yield "- All is linked to a random user ID, which Apple counts as linked; no name or advertising ID is known."
    for one in facts.recipients:
        yield f"- `{one.name}` ({one.host}) is a partner that may get pictures for {texts.doing(one.operations)}."
    if not facts.recipients:
        yield "- No partner gets pictures or texts."
    yield ""


def _unique(one: Collected, index: int) -> list[str]:
    return list(dict.fromkeys(USES[use][index] for use in one.uses))


def _where(facts: NoticeFacts) -> str:
    return f"; privacy choices URL: {facts.publisher.deletion_url}" if facts.publisher.deletion_url else ""
