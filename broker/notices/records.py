"""For authorities and auditors: the record of processing activities (GDPR Art. 30(1)) and the retention schedule."""

import re
from collections.abc import Iterator, Sequence

import msgspec

from broker.notices.collected import results_kept
from broker.notices.facts import NoticeFacts
from broker.notices.registry import registry
from broker.notices.texts import DEFAULT, texts_in
from broker.notifications import Channel
from policies.consent import Purpose

MISSING = "*to be filled in: `[publisher]` of the profile*"
STORES = {
    "postgres": "Postgres",
    "redis": "Redis",
    "channel": "Redis' channels, which keep nothing",
    "blob": "Blob store",
    "log": "Log",
    "metric": "Labels of figures",
}
TOLD = {
    Channel.WEBHOOK: "the app's own server",
    Channel.FCM: "Google (Firebase Cloud Messaging)",
    Channel.APNS: "Apple",
}
_SETTING = re.compile(r"\b(outputs_for_s|records_for_s|idle_user_for_s)\b")


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """One processing activity, as the article asks for it."""

    name: str
    basis: str
    data: str
    recipients: str
    erased: str


def article_30(facts: NoticeFacts, demands: Sequence[str]) -> str:
    """Write the record; `demands` are what the profile demands of the deployment."""
    return "\n".join([*_controller(facts), *_activities(facts), *_transfers(facts), *_measures(facts, demands)])


def schedule(facts: NoticeFacts) -> str:
    """Write the retention schedule: every column, key, blob, log field and label, with the profile's own times."""
    texts = texts_in(DEFAULT)
    lines = [f"# Retention schedule\n\nFrom the profile `{facts.profile}` and the retention registry.\n"]
    lines += ["| what | kept |", "|---|---|"]
    lines.append(
        f"| uploads, and what users type | until their job ends; at most {texts.lasting(facts.upload_within_s)} |"
    )
    lines.append(f"| results (`{facts.outputs}`) | {results_kept(facts)} |")
    lines.append(f"| records of jobs, receipts | {texts.lasting(facts.records_for_s)} after the job |")
    lines.append(f"| user ids, consents | {texts.lasting(facts.idle_user_for_s)} after the last use |")
    for one in facts.recipients:
        lines.append(
            f"| copies at `{one.name}` | at most {texts.lasting(one.retention_s)} (deletes: `{one.deletes}`) |"
        )
    return "\n".join([*lines, "", *_registry(facts)])


def _registry(facts: NoticeFacts) -> Iterator[str]:
    texts = texts_in(DEFAULT)
    times = {
        name: f"{texts.lasting(getattr(facts, name))} (`{name}`)"
        for name in ("outputs_for_s", "records_for_s", "idle_user_for_s")
    }
    for store, title in STORES.items():
        yield f"## {title}\n"
        yield "| what | category | purpose | kept |"
        yield "|---|---|---|---|"
        for kept in registry():
            if kept.store == store:
                names = ", ".join(f"`{name}`" for name in kept.names)
                age = _SETTING.sub(lambda found: times[found[1]], kept.age)
                yield f"| {names} | `{kept.category}` | {kept.purpose} | {age} |"
        yield ""


def _controller(facts: NoticeFacts) -> Iterator[str]:
    publisher = facts.publisher
    yield "# Record of processing activities (GDPR Art. 30(1))\n"
    yield f"From the profile `{facts.profile}` and lethe.toml.\n"
    yield "## Controller (a)\n"
    yield f"- Name: {publisher.name or MISSING}"
    yield f"- Address: {publisher.address or MISSING}"
    yield f"- Contact: {publisher.email or MISSING}"
    yield f"- Data protection officer or representative: {publisher.officer or '*none named*'}"
    yield f"- Service: {publisher.app or MISSING}\n"


def _activities(facts: NoticeFacts) -> Iterator[str]:
    yield "## Activities (b), (c), (d), (f)\n"
    yield "Data subjects: users of the app, and people whom their pictures show.\n"
    yield "| purpose | legal basis | personal data | recipients | erased |"
    yield "|---|---|---|---|---|"
    for one in _listed(facts):
        yield f"| {one.name} | {one.basis} | {one.data} | {one.recipients} | {one.erased} |"
    yield ""


def _listed(facts: NoticeFacts) -> Iterator[Activity]:
    texts, nobody = texts_in(DEFAULT), "none"
    lasting = texts.lasting
    given = [name for name, is_so in (("pictures", facts.has_pictures), ("typed texts", facts.has_texts)) if is_so]
    within = lasting(facts.upload_within_s)
    basis = "consent (6(1)(a))" if Purpose.PROCESSING in facts.required else "contract (6(1)(b))"
    yield Activity(
        name=texts.doing(facts.operations) if facts.operations else "no operation is offered",
        basis=basis,
        data=texts.listed([*given, "results"]),
        recipients=", ".join(f"{one.name} ({one.host})" for one in facts.recipients) or nobody,
        erased=f"uploads, texts: before the job is final, at most {within}; results: {results_kept(facts)}",
    )
    yield Activity(
        name="running and showing jobs",
        basis=basis,
        data="random user id, hash of its token, hashes of browsers' sessions, records of jobs without content",
        recipients=nobody,
        erased=f"records: {lasting(facts.records_for_s)} after the job; ids: {lasting(facts.idle_user_for_s)} unused",
    )
    if facts.has_sign_in:
        yield Activity(
            name="letting signed-in users in on further devices",
            basis=basis,
            data="a keyed hash of the app's own number of a sign-in, hashes of tokens",
            recipients=nobody,
            erased="with the user id, or before at the app's word",
        )
    if facts.are_outputs_sealed:
        yield Activity(
            name="sealing results to devices of their user",
            basis=basis,
            data="public keys of devices, keys of results wrapped to them",
            recipients=nobody,
            erased="with the device, the result or the user id",
        )
    if facts.has_credits:
        yield Activity(
            name="accounts of credits",
            basis="contract (6(1)(b))",
            data="credits granted and spent; of a purchase a reference or a digest, no payment data",
            recipients=nobody,
            erased="with the user id",
        )
    yield Activity(
        name="protection against abuse",
        basis="legitimate interest (6(1)(f))",
        data="a count under a salted hash of a shortened IP address",
        recipients=nobody,
        erased=lasting(facts.counter_s),
    )
    yield Activity(
        name="accountability",
        basis="legal obligation (5(2), 6(1)(c), 7(1))",
        data="signed receipts" + (", consents with notice version and time" if facts.purposes else ""),
        recipients=nobody,
        erased=f"receipts {lasting(facts.records_for_s)} after the job; consents with their user id",
    )
    yield Activity(
        name="answering requests by right",
        basis="legal obligation (6(1)(c), Chapter III)",
        data="which right, when, how it stands, which providers still have copies",
        recipients=nobody,
        erased=f"{lasting(facts.records_for_s)} after the request was completed",
    )
    if facts.channels:
        yield Activity(
            name="telling that a job has ended",
            basis="consent (6(1)(a))" if Purpose.PUSH in facts.purposes else basis,
            data="the address of a device or of the app's server, the number of the job and how it ended",
            recipients=", ".join(TOLD[channel] for channel in facts.channels),
            erased=f"once it was told, or switched off; at most {lasting(facts.notifications_s)}",
        )
    for purpose in facts.optional:
        yield Activity(
            name=texts.purposes[purpose][0].lower(),
            basis="consent (6(1)(a))",
            data="what the purpose needs; see the notice",
            recipients=nobody,
            erased="when consent is withdrawn, or with the user id",
        )


def _transfers(facts: NoticeFacts) -> Iterator[str]:
    texts = texts_in(DEFAULT)
    yield "## Recipients and transfers (d), (e)\n"
    yield f"Own servers and stores: {facts.publisher.region or MISSING}."
    yield f"Blob store: `{facts.blob_store}`, which has ciphertext only.\n"
    if not facts.recipients:
        yield "No picture leaves them; there is no transfer to a third country.\n"
        return
    yield "| recipient | place | may keep or see it | kept at most | deletion | safeguard |"
    yield "|---|---|---|---|---|---|"
    for one in facts.recipients:
        kept = texts.lasting(one.retention_s)
        place = one.region or "*not known: `region` in lethe.toml*"
        yield f"| {one.name} ({one.host}) | {place} | {one.exposure} | {kept} | {one.deletes} | *to be filled in* |"
    yield ""


def _measures(facts: NoticeFacts, demands: Sequence[str]) -> Iterator[str]:
    yield "## Security measures (g)\n"
    yield "- Uploads and results are encrypted under keys of their own."
    yield "- Keys live in the memory of one process alone; they are in no store and in no backup."
    if facts.are_outputs_sealed:
        yield "- Keys of results are an exception: they are kept, but only wrapped to devices of their user (HPKE)."
    yield "- Every copy is destroyed, and seen to be gone, before a job is final; a signed receipt states each."
    yield "- Untrusted pictures are decoded in sandboxed processes and rebuilt from pixels."
    yield "- Logs hold what an allow-list lets through: ids, codes, durations. No operator's verb shows a picture."
    yield f"- The profile demands of every process: {', '.join(f'`{name}`' for name in demands) or 'nothing'}."
    yield ""
