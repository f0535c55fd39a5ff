"""What users agreed to, in Postgres: rows are only added, and go with their user."""

import asyncpg
import msgspec

from broker.consents import Consent, Method, Standing, Wish
from broker.errors import TooManyRequests, Unauthenticated
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("consents")
MOST_A_DAY = 100
MOST_SHOWN = 1_000
A_DAY_S = 86_400


class ConsentStore:
    """The rows of `consents`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def standing(self, user_id: str) -> Standing:
        """Return what counts for a new job of a user at this moment: one read."""
        row = await self._database.row(SQL["standing"], user_id)
        assert row is not None
        return msgspec.convert(dict(row), Standing)

    async def record(self, user_id: str, wish: Wish, *, method: Method = Method.APP) -> None:
        """
        Add what changes anything; repeated, nothing is added.

        Raises TooManyRequests where a user gives and withdraws all day (a withdrawal always counts), and
        Unauthenticated where the user is no more.
        """
        if wish.give:
            row = await self._database.row(SQL["lately"], user_id)
            assert row is not None
            if row["added"] >= MOST_A_DAY:
                raise TooManyRequests(f"at most {MOST_A_DAY} changes of consent a day", retry_after_s=A_DAY_S)
        given = (user_id, wish.notice, list(wish.give), list(wish.withdraw), wish.stated_age, method)
        try:
            await self._database.rows(SQL["record"], *given)
        except asyncpg.ForeignKeyViolationError as exc:
            raise Unauthenticated("nobody has this token any more") from exc

    async def of_user(self, user_id: str) -> list[Consent]:
        """Return what a user gave and withdrew, oldest first, the newest thousand."""
        return [
            msgspec.convert(dict(row), Consent)
            for row in await self._database.rows(SQL["of_user"], user_id, MOST_SHOWN)
        ]
