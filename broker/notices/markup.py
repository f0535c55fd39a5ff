"""A notice as a document: Markdown for whoever edits it, HTML for whoever shows it."""

import html
from collections.abc import Iterable, Iterator

from broker.notices.facts import NoticeFacts
from broker.notices.sections import Section, sections_of
from broker.notices.texts import Texts

_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def markdown(facts: NoticeFacts, texts: Texts) -> str:
    """Write the notice as Markdown."""
    blocks = [block for section in sections_of(facts, texts) for block in _markdown(section)]
    return "\n\n".join([f"# {_escaped(texts.title)}", *blocks]) + "\n"


def page(facts: NoticeFacts, texts: Texts) -> str:
    """Write the notice as one HTML page without scripts, styles or links to elsewhere."""
    body = "\n".join(line for section in sections_of(facts, texts) for line in _html(section))
    return _PAGE.format(language=texts.language, title=html.escape(texts.title), body=body)


def _markdown(section: Section) -> Iterator[str]:
    yield f"## {_escaped(section.title)}"
    yield from map(_escaped, section.paragraphs)
    if section.items:
        yield "\n".join(f"- {_escaped(item)}" for item in section.items)
    yield from map(_escaped, section.notes)


def _html(section: Section) -> Iterator[str]:
    yield f'<section id="{section.id}">'
    yield f"<h2>{html.escape(section.title)}</h2>"
    yield from _elements("p", section.paragraphs)
    if section.items:
        yield "<ul>"
        yield from _elements("li", section.items)
        yield "</ul>"
    yield from _elements("p", section.notes)
    yield "</section>"


def _elements(tag: str, sentences: Iterable[str]) -> Iterator[str]:
    for sentence in sentences:
        yield f"<{tag}>{html.escape(sentence)}</{tag}>"


def _escaped(text: str) -> str:
    """Let nothing that an operator wrote become markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)
