"""
What Apple and Google call data that an app collects, by the facts; both stores' papers are made of it.

Where their rules leave a choice the wider answer stands: a random id counts as linked to the user, an encrypted file on
a disk as collected, and what a provider may keep for itself as shared.
"""

from enum import StrEnum

import msgspec

from broker.notices.facts import NoticeFacts
from broker.notices.texts import DEFAULT, texts_in
from policies.consent import Purpose
from providers.base import Exposure


class Kind(StrEnum):
    """Kinds of data that the stores tell apart, as far as Lethe may have them."""

    PHOTOS = "photos"
    TEXTS = "texts"
    USER_ID = "user_id"
    ACTIVITY = "activity"
    PURCHASES = "purchases"
    DEVICE_ID = "device_id"


class Use(StrEnum):
    """What data is used for, in words that both stores have."""

    FUNCTION = "function"
    SAFETY = "safety"
    ANALYTICS = "analytics"
    MARKETING = "marketing"


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of data: what for, whether anybody outside may keep it, whether users can do without, what it is."""

    kind: Kind
    uses: tuple[Use, ...]
    because: str
    is_shared: bool = False
    is_optional: bool = False


def results_kept(facts: NoticeFacts) -> str:
    """Say how long results stay, for papers that are in English alone."""
    lasting = texts_in(DEFAULT).lasting
    if facts.are_outputs_kept:
        return f"until their user deletes them, or is not seen for {lasting(facts.idle_user_for_s)}"
    longest = lasting(facts.outputs_for_s)
    return f"{lasting(facts.grace_s)} after delivery, at most {longest}" if facts.grace_s else longest


def collected(facts: NoticeFacts) -> list[Collected]:
    """List what is collected under these settings."""
    is_shared = any(one.exposure in {Exposure.LOGGED, Exposure.PUBLIC} for one in facts.recipients)
    has_analytics = Purpose.ANALYTICS in facts.purposes
    found = [
        Collected(kind=Kind.USER_ID, uses=(Use.FUNCTION, Use.SAFETY), because="a user ID that is drawn at random"),
        Collected(
            kind=Kind.ACTIVITY,
            uses=(Use.FUNCTION, *([Use.ANALYTICS] if has_analytics else [])),
            because="records of jobs: which operation, when, how it ended",
        ),
    ]
    if facts.has_texts:
        found.insert(0, _content(Kind.TEXTS, "what users type for a picture", is_shared=is_shared))
    if facts.has_pictures:
        found.insert(0, _content(Kind.PHOTOS, "pictures that users send to have them worked on", is_shared=is_shared))
    if facts.has_credits:
        why = "credits granted and spent; of a purchase a reference or a digest, no payment data"
        found.append(Collected(kind=Kind.PURCHASES, uses=(Use.FUNCTION,), because=why))
    return [*found, *_of_devices(facts)]


def _of_devices(facts: NoticeFacts) -> list[Collected]:
    """A public key that an installation made is a device's id in the stores' sense, as the address for push is."""
    asked = [use for purpose, use in _DEVICE_USES.items() if purpose in facts.purposes]
    asked = [Use.FUNCTION, *asked] if facts.has_push and Use.FUNCTION not in asked else asked
    why = ["a public key of each device, to which results are sealed"] if facts.are_outputs_sealed else []
    why += ["the address of the device for push notifications"] if asked else []
    if not why:
        return []
    always = [Use.FUNCTION] if facts.are_outputs_sealed and Use.FUNCTION not in asked else []
    is_optional = not facts.are_outputs_sealed and not set(facts.required) & _DEVICE_USES.keys()
    return [Collected(kind=Kind.DEVICE_ID, uses=(*always, *asked), because="; ".join(why), is_optional=is_optional)]


_DEVICE_USES = {Purpose.PUSH: Use.FUNCTION, Purpose.MARKETING: Use.MARKETING}


def _content(kind: Kind, because: str, *, is_shared: bool) -> Collected:
    return Collected(kind=kind, uses=(Use.FUNCTION,), because=because, is_shared=is_shared)
