"""The questions that work is asked at the door: can somebody do it, and do the policies let it in?"""

from uuid import UUID

import msgspec

from broker.consents import Standing
from broker.fleet import Fleet
from broker.notify.senders import Senders
from broker.operations import read_texts
from broker.refusals import refused
from broker.routing import Needs
from broker.store.consents import ConsentStore
from broker.store.job_values import Usage
from broker.submission import Submission
from broker.watch import Watch
from policies.base import Admit, Facts, Refuse
from policies.registry import Policies


class Door:
    """Lets submissions in, or raises why not."""

    def __init__(
        self, policies: Policies, fleet: Fleet, watch: Watch, consents: ConsentStore, *, senders: Senders
    ) -> None:
        self._policies = policies
        self._fleet = fleet
        self._watch = watch
        self._consents = consents
        self._senders = senders

    @property
    def max_upload_bytes(self) -> int:
        """How large a picture may be."""
        return self._policies.profile.limits.max_upload_bytes

    @property
    def profile(self) -> str:
        """The name of the policies' profile."""
        return self._policies.profile.name

    def price(self, operation: str) -> int:
        """What a job costs its user when it succeeds, in credits."""
        return self._policies.profile.credits.price(operation)

    @property
    def is_sealing(self) -> bool:
        """Whether the outputs of what enters now are sealed to devices."""
        return self._policies.profile.retention.sealed

    async def pool_for(self, submission: Submission, pictures: int, *, job_id: UUID) -> str:
        """Return the pool that the job will wait for; raise Refused or OperationUnavailable where none can do it."""
        texts = read_texts(submission.texts) if submission.texts else {}
        needs = Needs(operation=submission.operation, parameters={**submission.parameters, **texts}, pictures=pictures)
        return await self._fleet.pool_for(needs, job_id=job_id)

    async def require_posture(self) -> None:
        """Raise PostureUnmet while nothing may enter at all."""
        await self._watch.require()

    async def check_targets(self, submission: Submission) -> None:
        """Raise InvalidWebhook or NotificationUnavailable where nobody may, or can, be told that the job has ended."""
        for target in submission.targets:
            await self._senders.check(target)

    async def standing(self, submission: Submission) -> Standing | None:
        """Look up what a user agrees to, where the profile asks for anything; else nothing is read."""
        consent = self._policies.profile.consent
        is_asked = consent.is_asked or (submission.wants_push and consent.is_push_asked)
        return await self._consents.standing(submission.user_id) if is_asked else None

    def ask(self, submission: Submission, usage: Usage, standing: Standing | None) -> Admit:
        """Ask the policies before anything is read; raise a refusal."""
        facts = Facts(
            operation=submission.operation,
            upload_bytes=submission.content_length,
            live_jobs=usage.live,
            jobs_last_minute=usage.last_minute,
            consents=None if standing is None else standing.purposes,
            notice="" if standing is None else standing.notice,
            wants_push=submission.wants_push,
            stated_age=0 if standing is None else standing.stated_age,
            device_keys=usage.devices,
            start_within_s=submission.start_within_s,
            finish_within_s=submission.finish_within_s,
            credits=usage.credits,
            is_restricted=usage.is_restricted,
            is_erasing=usage.is_erasing,
        )
        admit, deadline_s = self._admitted(facts), self._fleet.deadline_s(submission.operation)
        return msgspec.structs.replace(
            admit,
            start_within_s=min(admit.start_within_s, deadline_s),
            finish_within_s=min(admit.finish_within_s, deadline_s),
        )

    def check_size(self, submission: Submission, width: int, height: int) -> None:
        """Ask again where a picture's header tells its size; raise a refusal."""
        expected = self._fleet.estimate(submission.operation, submission.parameters, width, height)
        facts = Facts(
            operation=submission.operation,
            width=width,
            height=height,
            output_pixels=expected.output_pixels if expected else None,
            expected_s=expected.model_s if expected else None,
            start_within_s=submission.start_within_s,
            finish_within_s=submission.finish_within_s,
        )
        self._admitted(facts)

    def _admitted(self, facts: Facts) -> Admit:
        answer = self._policies.admit(facts)
        if isinstance(answer, Refuse):
            raise refused(answer)
        return answer
