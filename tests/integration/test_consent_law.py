"""What Postgres itself keeps of notices and consents: rows are added, and a user's go with the user."""

import asyncio

import asyncpg
import msgspec
import pytest

from broker.consents import Wish
from broker.services import Services
from broker.settings import Settings
from broker.sweep import Sweep
from tests.lifecycle import count, run_sql


async def agreed(services: Services) -> str:
    """A user who agreed to something."""
    user = await services.stores.users.mint()
    shown = await services.noticeboard.shown()
    await services.stores.consents.record(user.user_id, Wish(notice=shown.current.version, give=("processing",)))
    return user.user_id


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE consents SET event = 'withdrawn'",
        "UPDATE consents SET at = at - interval '1 day'",
        "DELETE FROM consents",
        "TRUNCATE consents",
        "TRUNCATE users CASCADE",
        "UPDATE notices SET effective_at = effective_at + interval '1 day'",
        "DELETE FROM notices WHERE version NOT IN (SELECT notice FROM consents)",
        "TRUNCATE notices CASCADE",
    ],
)
async def test_rows_are_only_added(services: Services, settings: Settings, statement: str) -> None:
    """Neither what was agreed to nor what it was agreed to is changed or deleted, by whomever."""
    await agreed(services)
    await run_sql(
        settings,
        "INSERT INTO notices (version, digest, facts, announced_at, effective_at) "
        "VALUES ('other', sha256('x'), '{}', now(), now() + interval '1 day')",
    )
    with pytest.raises(asyncpg.CheckViolationError, match="only added"):
        await run_sql(settings, statement)


async def test_times_are_whole_seconds(services: Services, settings: Settings) -> None:
    """Nothing finer is kept of when somebody agreed."""
    user_id = await agreed(services)
    (row,) = await services.stores.consents.of_user(user_id)
    assert row.at.microsecond == 0
    with pytest.raises(asyncpg.CheckViolationError, match="whole_second"):
        await run_sql(
            settings,
            "INSERT INTO consents (user_id, notice, purpose, event, method, at) "
            "SELECT user_id, notice, purpose, event, method, at + interval '1 millisecond' FROM consents",
        )


async def test_consents_go_with_their_user(services: Services, settings: Settings) -> None:
    """An idle user is deleted, and what it agreed to with it; another's stays, and so does the notice."""
    idle, busy = await agreed(services), await agreed(services)
    await run_sql(settings, "UPDATE users SET last_seen_on = last_seen_on - 31 WHERE id = $1", idle)
    sweep = Sweep(
        services.stores,
        settler=services.settler,
        purges=services.purges,
        lease=services.lease,
        every_s=60,
        retention=services.policies.profile.retention,
    )
    await sweep.records()
    assert await services.stores.consents.of_user(idle) == []
    assert len(await services.stores.consents.of_user(busy)) == 1
    assert await count(settings, "notices") == 1


async def test_brokers_that_start_at_once_announce_once(services: Services, settings: Settings) -> None:
    """The same settings are one notice, however many processes tell of them at once."""
    facts = msgspec.structs.replace(services.noticeboard.facts, records_for_s=1)
    announce = services.stores.notices.announce
    made = await asyncio.gather(*(announce(facts.digest, facts, days=0) for _ in range(8)))
    assert len([one for one in made if one is not None]) == 1
    assert await services.noticeboard.publish() is not None  # these settings are no longer in force
    assert await services.noticeboard.publish() is None
    assert await count(settings, "notices") == 3


async def test_the_same_facts_again_are_a_version_of_their_own(services: Services) -> None:
    """Changed and changed back within a day: another version, to which the earlier consent still counts."""
    user_id = await agreed(services)
    facts = msgspec.structs.replace(services.noticeboard.facts, records_for_s=1)
    first = (await services.noticeboard.shown()).current
    await services.stores.notices.announce(facts.digest, facts, days=0)
    assert (await services.stores.consents.standing(user_id)).purposes == frozenset()
    await services.noticeboard.publish()
    last = (await services.noticeboard.shown()).current
    assert (last.version, last.digest) == (f"{first.version}-2", first.digest)
    assert (await services.stores.consents.standing(user_id)).purposes == {"processing"}
