"""`lethe notice`: writes what users, stores and authorities are told, from the settings that Lethe runs with."""

from collections.abc import Sequence
from pathlib import Path

import click

from broker.commands.endings import FOLDER, checked, run, say
from broker.commands.providers import config_option
from broker.config import load_config
from broker.notices.documents import HAS_LANGUAGES, Document, Format, document
from broker.notices.facts import NoticeFacts, facts_of
from broker.notices.texts import DEFAULT, LANGUAGES
from broker.notifications import Channel
from broker.store.database import Database
from broker.store.notices import NoticeStore, StoredNotice
from policies.registry import Policies, load_profile


@click.command("notice")
@click.option(
    "--format", "form", type=click.Choice([str(form) for form in Format]), help="Which; with --out, else all."
)
@click.option("--language", type=click.Choice(LANGUAGES), help="Of md and html; en, or with --out all.")
@click.option("--out", type=FOLDER, help="Write files into this folder instead of one document to the terminal.")
@click.option("--profile", envvar="LETHE_PROFILE", default="minimal", show_default=True, help="Under which policies.")
@click.option("--blobs-url", envvar="LETHE_BLOBS_URL", default="file:///", help="Where ciphertext lies.")
@click.option("--subject-key-file", envvar="LETHE_SUBJECT_KEY_FILE", default="", help="Where sign-ins are linked.")
@click.option(
    "--webhooks", envvar="LETHE_WEBHOOK_KEYS_FILE", default="", help="What signs webhooks, where some are sent."
)
@click.option("--fcm", envvar="LETHE_FCM_ACCOUNT_FILE", default="", help="By what account push is sent, where it is.")
@click.option("--apns", envvar="LETHE_APNS_KEY_FILE", default="", help="By what key push is sent through Apple.")
@click.option("--announce", is_flag=True, help="Announce the notice of these settings, before anything runs by them.")
@click.option("--dsn", envvar="LETHE_POSTGRES_DSN", help="With --announce: which database.  [env: LETHE_POSTGRES_DSN]")
@config_option
def notice_command(  # noqa: PLR0913 - an argument for each option
    *,
    form: str | None,
    language: str | None,
    out: Path | None,
    profile: str,
    blobs_url: str,
    subject_key_file: str,
    webhooks: str,
    fcm: str,
    apns: str,
    announce: bool,
    dsn: str | None,
    file: Path | None,
) -> None:
    """Write the privacy notice, and the papers for Apple, Google Play and authorities, from the running settings.

    md, html: the notice. apple: PrivacyInfo.xcprivacy. apple-labels: answers for App Store Connect. google: the
    data-safety CSV. article30: the record of processing activities. retention: the retention schedule.

    Have them read by somebody who answers for them. With --announce the notice is shown to users as the next one, and
    takes effect `announce_days` later: start the brokers with the new settings then.

    \b
    Example:  lethe notice --format md --language tr
              lethe notice --out papers
              lethe notice --announce --profile next.toml --config next-lethe.toml
    """
    policies = Policies(checked(load_profile, profile))
    channels = [
        channel for channel, named in ((Channel.WEBHOOK, webhooks), (Channel.FCM, fcm), (Channel.APNS, apns)) if named
    ]
    config, has_sign_in = checked(load_config, file), bool(subject_key_file)
    facts = facts_of(policies, config, blobs_url=blobs_url, channels=channels, has_sign_in=has_sign_in)
    if announce:
        _announce(facts, dsn)
        return
    if out is None and form is None:
        raise click.UsageError("name a --format, or a folder with --out")
    demands = [str(demand) for demand in policies.profile.posture.demands]
    forms = [Format(form)] if form else list(Format)
    languages = (language,) if language else LANGUAGES if out else (DEFAULT,)
    _write([paper for one in forms for paper in _papers(one, facts, demands, languages)], out)


def _papers(form: Format, facts: NoticeFacts, demands: Sequence[str], languages: Sequence[str]) -> list[Document]:
    spoken = languages if form in HAS_LANGUAGES else (DEFAULT,)
    return [document(form, facts, demands=demands, language=language) for language in spoken]


def _write(papers: list[Document], out: Path | None) -> None:
    if out is None:
        click.echo(papers[0].content, nl=False)
        return
    out.mkdir(parents=True, exist_ok=True)
    for paper in papers:
        (out / paper.name).write_bytes(paper.content)
        say(str(out / paper.name))


def _announce(facts: NoticeFacts, dsn: str | None) -> None:
    if not dsn:
        raise click.UsageError("--announce needs --dsn, or LETHE_POSTGRES_DSN")
    made = run(_add(facts, dsn))
    if made is None:
        say("Nothing to announce: the newest notice says the same.")
    else:
        say(f"Announced {made.version}; it takes effect at {made.effective_at:%Y-%m-%d %H:%M:%S} UTC.")


async def _add(facts: NoticeFacts, dsn: str) -> StoredNotice | None:
    database = Database(dsn, connections=1)
    await database.open()
    try:
        notices = NoticeStore(database)
        return await notices.announce(facts.digest, facts, days=facts.announce_days, though_in_force=True)
    finally:
        await database.aclose()
