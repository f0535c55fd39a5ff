"""Every paper that is made of the facts, by the name of its format, and the file that it goes into."""

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from broker.notices.apple import labels, privacy_info
from broker.notices.facts import NoticeFacts
from broker.notices.google import data_safety
from broker.notices.markup import markdown, page
from broker.notices.records import article_30, schedule
from broker.notices.texts import DEFAULT, texts_in


class Format(StrEnum):
    """What can be written."""

    MD = "md"  # the notice, for whoever edits it
    HTML = "html"  # the notice, for whoever shows it
    APPLE = "apple"  # PrivacyInfo.xcprivacy
    APPLE_LABELS = "apple-labels"  # answers for App Store Connect
    GOOGLE = "google"  # the data-safety form of the Play Console
    ARTICLE_30 = "article30"  # record of processing activities
    RETENTION = "retention"  # everything that is kept, and how long


HAS_LANGUAGES = frozenset({Format.MD, Format.HTML})


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A file: its usual name and what is in it."""

    name: str
    content: bytes


def document(form: Format, facts: NoticeFacts, *, demands: Sequence[str] = (), language: str = DEFAULT) -> Document:
    """Write one; `language` is for the notice alone, `demands` are the profile's, for the record of processing."""
    texts = texts_in(language)
    papers: dict[Format, Callable[[], Document]] = {
        Format.MD: lambda: _text(f"privacy-notice.{language}.md", markdown(facts, texts)),
        Format.HTML: lambda: _text(f"privacy-notice.{language}.html", page(facts, texts)),
        Format.APPLE: lambda: Document(name="PrivacyInfo.xcprivacy", content=privacy_info(facts)),
        Format.APPLE_LABELS: lambda: _text("app-store-privacy.md", labels(facts)),
        Format.GOOGLE: lambda: _text("data-safety.csv", data_safety(facts)),
        Format.ARTICLE_30: lambda: _text("article-30.md", article_30(facts, demands)),
        Format.RETENTION: lambda: _text("retention-schedule.md", schedule(facts)),
    }
    return papers[form]()


def _text(name: str, content: str) -> Document:
    return Document(name=name, content=content.encode())
