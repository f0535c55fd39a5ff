"""The notice, section by section: which sentences are said, by the facts; the words are those of a language's file."""

from collections.abc import Iterator

import msgspec

from broker.notices.facts import NoticeFacts, Recipient
from broker.notices.texts import Texts
from broker.notifications import Channel
from policies.consent import Purpose


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A heading; sentences; a list that follows them; and sentences after that. Plain text, no markup."""

    id: str
    title: str
    paragraphs: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def sections_of(facts: NoticeFacts, texts: Texts) -> tuple[Section, ...]:
    """Say everything, in the order in which it is read."""
    writer = _Writer(facts, texts)
    parts = (
        *(writer.who(), writer.what(), writer.why(), writer.how_long(), writer.who_gets_it(), writer.where()),
        *(writer.safety(), writer.rights(), writer.deletion(), writer.consents(), writer.children()),
        *(writer.changes(), writer.contact()),
    )
    return tuple(part for part in parts if part.paragraphs or part.items)


class _Writer:
    """Chooses the sentences of each section."""

    def __init__(self, facts: NoticeFacts, texts: Texts) -> None:
        self._facts = facts
        self._texts = texts

    def who(self) -> Section:
        publisher = self._facts.publisher
        said = [("app", publisher.app), ("named" if publisher.name else "unnamed", publisher.name or "-")]
        said += [("address", publisher.address), ("officer", publisher.officer)]
        values = {"app": publisher.app, "name": publisher.name, "address": publisher.address}
        sentences = [self._say("who", name, **values, officer=publisher.officer) for name, is_known in said if is_known]
        return self._section("who", " ".join(sentences))

    def what(self) -> Section:
        facts, counter = self._facts, self._texts.lasting(self._facts.counter_s)
        said = {
            "pictures": facts.has_pictures,
            "texts": facts.has_texts,
            "results": True,
            "videos": facts.has_videos,
            "records": True,
            "credits": facts.has_credits,
            "user": True,
            "links": facts.has_sign_in,
            "cookie": True,
            "counter": True,
            "consents": bool(facts.purposes),
            "age": bool(facts.min_age),
            "devices": facts.are_outputs_sealed,
            "requests": True,
            "audit": True,
            "push": Purpose.PUSH in facts.purposes,
            "push_given": facts.has_push and Purpose.PUSH not in facts.purposes,
            "webhook": Channel.WEBHOOK in facts.channels,
            "analytics": Purpose.ANALYTICS in facts.purposes,
            "reports": True,
            "logs": True,
        }
        items = [self._say("what", name, counter=counter, age=facts.min_age) for name, is_so in said.items() if is_so]
        return self._section("what", self._say("what", "intro"), items=items, notes=["never"])

    def why(self) -> Section:
        facts, texts = self._facts, self._texts
        doing = texts.doing(facts.operations) if facts.operations else "-"
        service = "service_by_consent" if Purpose.PROCESSING in facts.required else "service"
        items = [self._say("why", service, operations=doing), self._say("why", "safety"), self._say("why", "proof")]
        if facts.optional:
            names = texts.listed([texts.purposes[purpose][0] for purpose in facts.optional])
            items.append(self._say("why", "optional", purposes=names))
        return self._section("why", items=items, notes=["never"])

    def how_long(self) -> Section:
        facts, lasting = self._facts, self._texts.lasting
        items = [
            self._say("how_long", "uploads", within=lasting(facts.upload_within_s)),
            self._results(),
            self._say("how_long", "records", lasting=lasting(facts.records_for_s)),
            self._say("how_long", "user", lasting=lasting(facts.idle_user_for_s)),
            *([self._say("how_long", "devices")] if facts.are_outputs_sealed else []),
            *([self._say("how_long", "links", lasting=lasting(facts.idle_user_for_s))] if facts.has_sign_in else []),
            self._say("how_long", "cookie"),
            self._say("how_long", "requests", lasting=lasting(facts.records_for_s)),
            self._say("how_long", "audit", lasting=lasting(facts.records_for_s)),
            self._say("how_long", "hold"),
            self._say("how_long", "backups"),
            *([self._say("how_long", "credits")] if facts.has_credits else []),
            *([self._say("how_long", "notified", lasting=lasting(facts.notifications_s))] if facts.channels else []),
            self._say("how_long", "counter", lasting=lasting(facts.counter_s)),
            self._say("how_long", "logs"),
        ]
        return self._section("how_long", items=items)

    def who_gets_it(self) -> Section:
        facts = self._facts
        items = [self._recipient(recipient) for recipient in facts.recipients]
        notes = ["receipts", "authorities"] if items else ["authorities"]
        stored = [] if facts.blob_store == "file" else [self._say("who_gets_it", "storage", store=facts.blob_store)]
        told = [self._say("who_gets_it", name) for name in facts.channels]
        opening = self._say("who_gets_it", "intro" if items else "nobody")
        return self._section("who_gets_it", opening, *stored, *told, items=items, notes=notes)

    def where(self) -> Section:
        facts = self._facts
        region = facts.publisher.region
        own = self._say("where", "own", region=region) if region else self._say("where", "own_unknown")
        items = [
            self._say("where", "provider" if one.region else "provider_unknown", name=one.name, region=one.region)
            for one in facts.recipients
        ]
        allowed = [self._say("where", "regions", regions=self._texts.listed(facts.regions))] if facts.regions else []
        return self._section("where", own, *allowed, items=items, notes=["transfers"] if items else [])

    def safety(self) -> Section:
        keys = "keys_sealed" if self._facts.are_outputs_sealed else "keys"
        said = [self._say("safety", name) for name in ("encryption", keys, "transport", "receipt")]
        return self._section("safety", " ".join(said[:3]), said[3])

    def rights(self) -> Section:
        authority = self._facts.publisher.authority
        names = ["access", "rectify", "erase", "restrict", "move", *(["withdraw"] if self._facts.purposes else [])]
        items = [self._say("rights", name) for name in names]
        items.append(self._say("rights", "complain_to" if authority else "complain", authority=authority))
        intro, days = self._say("rights", "intro"), self._facts.answer_within_days
        notes = ["how", *(["providers"] if self._facts.recipients else []), "calls", "places"]
        return self._section("rights", intro, items=items, notes=notes, days=days)

    def deletion(self) -> Section:
        url = self._facts.publisher.deletion_url
        page = [self._say("deletion", "page", url=url)] if url else []
        devices = [self._say("deletion", "devices")] if self._facts.are_outputs_sealed else []
        return self._section("deletion", self._say("deletion", "app"), *devices, *page, self._say("deletion", "phone"))

    def consents(self) -> Section:
        facts = self._facts
        if not facts.purposes:
            return self._section("consents")
        marked = [("needed", purpose) for purpose in facts.required] + [("free", purpose) for purpose in facts.optional]
        items = [self._purpose(mark, purpose) for mark, purpose in marked]
        opening = "both" if facts.required and facts.optional else "required" if facts.required else "optional"
        notes = ["again"] if facts.required else []
        return self._section("consents", self._say("consents", opening), items=items, notes=notes)

    def children(self) -> Section:
        age = self._facts.min_age
        return self._section("children", self._say("children", "aged" if age else "general", age=age))

    def changes(self) -> Section:
        days = self._facts.announce_days
        when = self._say("changes", "announced" if days else "at_once", days=days)
        return self._section("changes", when, self._say("changes", "made"))

    def contact(self) -> Section:
        email = self._facts.publisher.email
        return self._section("contact", self._say("contact", "email" if email else "nothing", email=email))

    def _results(self) -> str:
        facts, lasting = self._facts, self._texts.lasting
        ends = {"lasting": facts.outputs_for_s, "grace": facts.grace_s, "idle": facts.idle_user_for_s}
        return self._say("how_long", f"outputs_{facts.outputs}", **{name: lasting(s) for name, s in ends.items()})

    def _recipient(self, one: Recipient) -> str:
        lasting = self._texts.lasting(one.retention_s)
        keeps = self._say(
            "who_gets_it", f"keeps_{one.deletes}" if one.retention_s else "keeps_nothing", lasting=lasting
        )
        sees = self._say("who_gets_it", f"sees_{one.exposure}")
        doing = self._texts.doing(one.operations)
        return self._say(
            "who_gets_it", "recipient", name=one.name, host=one.host, operations=doing, keeps=keeps, sees=sees
        )

    def _purpose(self, mark: str, purpose: Purpose) -> str:
        name, text = self._texts.purposes[purpose]
        return self._say("consents", mark, name=name, text=text)

    def _say(self, section: str, sentence: str, **values: object) -> str:
        return self._texts.say(section, sentence, **values)

    def _section(
        self,
        name: str,
        *paragraphs: str,
        items: list[str] | None = None,
        notes: list[str] | None = None,
        **values: object,
    ) -> Section:
        said = tuple(self._say(name, note, **values) for note in notes or ())
        title = self._say(name, "title")
        return Section(id=name, title=title, paragraphs=paragraphs, items=tuple(items or ()), notes=said)


def prose(sections: tuple[Section, ...]) -> Iterator[str]:
    """Yield every sentence, for whoever looks for a word."""
    for section in sections:
        yield from (section.title, *section.paragraphs, *section.items, *section.notes)
