"""
A consent as a record in the shape of ISO/IEC TS 27560:2023: header, processing, parties, event.

The names of the fields are the specification's; `schema_version` is of this form of it.
"""

from datetime import UTC
from typing import Annotated
from uuid import UUID

import msgspec

from broker.consents import Consent, ConsentEvent
from broker.notices.facts import NoticeFacts
from broker.notices.texts import DEFAULT, texts_in
from policies.consent import Purpose

SCHEMA_VERSION = "lethe.consent/1 (ISO/IEC TS 27560:2023)"

Time = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
PICTURES, TEXTS, USER, DEVICE = "pictures", "typed texts", "random user id", "push address of the device"
_PII = {
    Purpose.PROCESSING: (PICTURES, TEXTS, USER),
    Purpose.PROVIDERS: (PICTURES, TEXTS),
    Purpose.TRANSFER: (PICTURES, TEXTS),
    Purpose.RETENTION: ("results",),
    Purpose.PUSH: (DEVICE,),
    Purpose.MARKETING: (DEVICE,),
    Purpose.ANALYTICS: ("counts of use",),
}
_SENT_OUT = frozenset({Purpose.PROCESSING, Purpose.PROVIDERS, Purpose.TRANSFER})


class ConsentPurpose(msgspec.Struct, frozen=True, kw_only=True):
    """What was agreed to, and what is done with which data for it."""

    purpose: str
    purpose_type: str
    lawful_basis: str
    pii_information: list[str]
    pii_controllers: list[str]
    collection_method: str
    storage_locations: list[str]
    retention_period: str
    recipient_third_parties: list[str]
    withdrawal_method: str
    privacy_rights: list[str]


class PiiProcessing(msgspec.Struct, frozen=True, kw_only=True):
    """Which notice was shown, and the one purpose of this record."""

    privacy_notice: str
    notice_version: str
    language: str
    purposes: list[ConsentPurpose]


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """The controller, as far as the profile names it."""

    party_id: str
    party_role: str
    party_name: str
    party_address: str
    party_email: str


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened when; `stated_age` says how old the user said to be at least."""

    event_time: Time
    event_type: str
    event_state: str
    entity_id: str
    stated_age: int | msgspec.UnsetType = msgspec.UNSET


class ConsentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One consent that was given or withdrawn, complete in itself."""

    schema_version: str
    record_id: UUID
    pii_principal_id: str
    pii_processing: list[PiiProcessing]
    party_identification: list[Party]
    event: RecordedEvent


def record_of(consent: Consent, facts: NoticeFacts) -> ConsentRecord:
    """Put a row and the facts of its notice into the shape of the specification."""
    publisher = facts.publisher
    is_given = consent.event is ConsentEvent.GIVEN
    return ConsentRecord(
        schema_version=SCHEMA_VERSION,
        record_id=consent.id,
        pii_principal_id=consent.user_id,
        pii_processing=[
            PiiProcessing(
                privacy_notice=f"/v1/privacy/notice?version={consent.notice}",
                notice_version=consent.notice,
                language=DEFAULT,
                purposes=[_purpose(Purpose(consent.purpose), facts)],
            )
        ],
        party_identification=[
            Party(
                party_id="controller",
                party_role="PII controller",
                party_name=publisher.name,
                party_address=publisher.address,
                party_email=publisher.email,
            )
        ],
        event=RecordedEvent(
            event_time=consent.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            event_type="explicit",
            event_state="consent_given" if is_given else "consent_withdrawn",
            entity_id=consent.user_id,
            stated_age=consent.stated_age or msgspec.UNSET,
        ),
    )


def _purpose(purpose: Purpose, facts: NoticeFacts) -> ConsentPurpose:
    texts = texts_in(DEFAULT)
    outside = [f"{one.name} ({one.host})" for one in facts.recipients] if purpose in _SENT_OUT else []
    return ConsentPurpose(
        purpose=texts.purposes[purpose][1],
        purpose_type=purpose,
        lawful_basis="consent",
        pii_information=list(_PII[purpose]),
        pii_controllers=["controller"],
        collection_method="sent by the user from the app",
        storage_locations=[facts.publisher.region] if facts.publisher.region else [],
        retention_period=_kept(purpose, facts),
        recipient_third_parties=outside,
        withdrawal_method="PUT /v1/me/consents",
        privacy_rights=["access", "rectification", "erasure", "restriction", "portability", "objection", "withdrawal"],
    )


def _kept(purpose: Purpose, facts: NoticeFacts) -> str:
    """Say how long, with ISO 8601 periods: what was sent until its job ends, the rest by the settings."""
    if purpose in _SENT_OUT:
        return f"until the job ends, at most PT{facts.upload_within_s}S"
    if purpose is Purpose.RETENTION:
        return "until its user deletes them" if facts.are_outputs_kept else f"PT{facts.outputs_for_s}S"
    return f"until withdrawn, at most PT{facts.idle_user_for_s}S after the last use"
