"""The privacy notice over HTTP: what holds, and what will, in a language of the reader."""

import hashlib

import msgspec
from litestar import Response, get
from msgspec import UNSET, UnsetType

from broker.api.deps import HttpRequest, Wired
from broker.api.languages import preferred
from broker.api.views import Moment, whole_second
from broker.consent_errors import UnknownLanguage, UnknownNotice
from broker.noticeboard import Notice, Shown
from broker.notices.sections import Section, sections_of
from broker.notices.texts import DEFAULT, LANGUAGES, Texts, texts_in


class NoticePurposeView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that users are asked to agree to; without what `is_required` no job is taken in."""

    id: str
    is_required: bool
    title: str
    text: str


class NoticeSectionView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A heading; sentences; a list that follows them; and sentences after that. Plain text, no markup."""

    id: str
    title: str
    paragraphs: list[str] | UnsetType = UNSET
    items: list[str] | UnsetType = UNSET
    notes: list[str] | UnsetType = UNSET


class NoticeView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of the notice. Without `min_age` no age is asked for."""

    version: str
    effective_at: Moment
    title: str
    sections: list[NoticeSectionView]
    purposes: list[NoticePurposeView] | UnsetType = UNSET
    min_age: int | UnsetType = UNSET


class NoticePairView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The notice that holds (or the version that was asked for), and the `next` one with when it takes effect."""

    language: str
    languages: list[str]
    current: NoticeView
    next: NoticeView | UnsetType = UNSET


@get("/v1/privacy/notice")
async def get_notice(request: HttpRequest, services: Wired) -> Response[bytes] | Response[None]:
    """Show the notice in force and the next one; `?version=` any other there ever was, `?lang=` in which language."""
    language = _language(request)
    version = request.query_params.get("version")
    shown = await services.noticeboard.shown()
    if version is not None:
        found = await services.noticeboard.find(version)
        if found is None:
            raise UnknownNotice(pointer="#/parameters/version")
        shown = Shown(current=found, next=None)
    return _answer(request, msgspec.json.encode(show_pair(shown, texts_in(language))), language)


def show_pair(shown: Shown, texts: Texts) -> NoticePairView:
    """Say both in one language."""
    return NoticePairView(
        language=texts.language,
        languages=list(LANGUAGES),
        current=_show(shown.current, texts),
        next=UNSET if shown.next is None else _show(shown.next, texts),
    )


def _show(notice: Notice, texts: Texts) -> NoticeView:
    facts = notice.facts
    purposes = [
        NoticePurposeView(id=purpose, is_required=purpose in facts.required, title=title, text=text)
        for purpose in facts.purposes
        for title, text in [texts.purposes[purpose]]
    ]
    return NoticeView(
        version=notice.version,
        effective_at=whole_second(notice.effective_at),
        title=texts.title,
        sections=[_section(section) for section in sections_of(facts, texts)],
        purposes=purposes or UNSET,
        min_age=facts.min_age or UNSET,
    )


def _section(section: Section) -> NoticeSectionView:
    return NoticeSectionView(
        id=section.id,
        title=section.title,
        paragraphs=list(section.paragraphs) or UNSET,
        items=list(section.items) or UNSET,
        notes=list(section.notes) or UNSET,
    )


def _language(request: HttpRequest) -> str:
    asked = request.query_params.get("lang")
    if asked is None:
        return preferred(request.headers.get("accept-language", ""), LANGUAGES, default=DEFAULT)
    language = asked.lower().partition("-")[0]
    if language not in LANGUAGES:
        raise UnknownLanguage(f"the notice is there in {', '.join(LANGUAGES)}", pointer="#/parameters/lang")
    return language


def _answer(request: HttpRequest, body: bytes, language: str) -> Response[bytes] | Response[None]:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "ETag": etag,
        "Content-Language": language,
        "Vary": "Accept-Language",
        "Cache-Control": "public, no-cache",
    }
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {etag, "*"}:
        return Response(None, status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
