"""What the policies cost an admission: what they have to be told, which is read from Postgres, and what they say."""

import statistics
import time
from typing import Final
from uuid import uuid4

import msgspec

from bench.report import Chapter, Figure, at_most
from bench.scale import Scale
from bench.stack import Stack
from broker.store.consents import ConsentStore
from broker.store.job_values import Usage
from broker.store.jobs import JobStore
from policies.base import Facts, Refuse
from policies.registry import Policies, load_profile

PROFILE: Final = "xpictures"
"""Every policy has something to say in it: consents, an age, prices."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """How long it took, milliseconds, job by job."""

    told: list[float]
    said: list[float]

    @property
    def p50(self) -> float:
        """Of both together."""
        return statistics.median(told + said for told, said in zip(self.told, self.said, strict=True))


async def admission(stack: Stack, scale: Scale) -> Chapter:
    """Ask about jobs of one user, one after the other."""
    rounds = [await _asked(stack, scale.admissions) for _ in range(scale.rounds)]
    method = (
        f"under the profile {PROFILE}, {scale.admissions} jobs of one user a round, one at a time: what the user sent "
        "lately, has and asked for by right, and what it agrees to (two reads of Postgres, the first of which says too "
        "whether the job is known); then every policy is asked twice, before the body and when the picture's size is "
        "known, and once how long things stay."
    )
    return Chapter(
        title="Policies at admission",
        figures=(
            Figure(
                name="all policies together, p50",
                unit="ms",
                rounds=tuple(one.p50 for one in rounds),
                budget=at_most(1.0),
                method=method,
            ),
            Figure(
                name="of that, what policies say, p50",
                unit="ms",
                rounds=tuple(statistics.median(one.said) for one in rounds),
                method="as above, without the reads.",
            ),
        ),
    )


async def _asked(stack: Stack, jobs: int) -> Asked:
    user = await stack.users.mint()
    policies = Policies(load_profile(PROFILE))
    job_store, consents = JobStore(stack.database), ConsentStore(stack.database)
    asked = Asked(told=[], said=[])

    for _ in range(jobs):
        before_s = time.perf_counter()
        _, usage = await job_store.look(user.user_id, uuid4())
        standing = await consents.standing(user.user_id)
        told_s = time.perf_counter()
        _say(policies, usage, consents=standing.purposes, notice=standing.notice)
        asked.told.append((told_s - before_s) * 1000)
        asked.said.append((time.perf_counter() - told_s) * 1000)
    return asked


def _say(policies: Policies, usage: Usage, *, consents: frozenset[str], notice: str) -> None:
    # What a user lacks is made up for here: a refusal would cut the asking short.
    agreed = consents | set(policies.profile.consent.required)
    facts = Facts(
        operation="upscale",
        upload_bytes=100_000,
        live_jobs=usage.live,
        jobs_last_minute=usage.last_minute,
        consents=agreed,
        notice=notice,
        stated_age=policies.profile.consent.min_age or 0,
        device_keys=usage.devices,
        credits=usage.credits + policies.profile.credits.price("upscale"),
    )
    sized = msgspec.structs.replace(facts, width=4_000, height=3_000, output_pixels=48_000_000, expected_s=3.0)
    answers = (policies.admit(facts), policies.admit(sized))
    if refused := next((answer for answer in answers if isinstance(answer, Refuse)), None):
        raise AssertionError(f"a refusal asks fewer policies: {refused.reason}")
    policies.retain(facts)
