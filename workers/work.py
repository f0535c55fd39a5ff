"""One claimed job with what it was given, as everything that runs it needs it."""

from collections.abc import Sequence

import msgspec

from broker.custody import What
from broker.jobs import Job, StoredUpload
from broker.operations import Value
from broker.routing import Needs
from workers.outcomes import Ending


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A job, where its uploads lie, and what its user typed."""

    job: Job
    uploads: Sequence[StoredUpload]
    texts: dict[str, Value]
    lost: Ending | None = None
    """How it ends unless an order that is under way delivers: what was typed cannot be opened any more."""

    def __repr__(self) -> str:
        """Never show what was typed."""
        return f"Work({self.job.id})"

    @property
    def parameters(self) -> dict[str, Value]:
        """Every parameter."""
        return {**self.job.parameters, **self.texts}

    @property
    def needs(self) -> Needs:
        """What it asks of a provider."""
        pictures = sum(upload.what is What.UPLOAD for upload in self.uploads)
        return Needs(operation=self.job.operation, parameters=self.parameters, pictures=pictures)
