"""
Why a provider did not deliver: the kinds of failure, and the one exception that providers raise.

* ProviderError
  x ProviderFailure (kind: FailureKind)
"""

from enum import StrEnum


class FailureKind(StrEnum):
    """Why a provider did not deliver; the retry loop decides on this alone."""

    INVALID_INPUT = "invalid_input"  # this picture or parameter is refused, everywhere
    CONTENT_REJECTED = "content_rejected"  # moderation refused the picture, the words or the output
    UNSUPPORTED = "unsupported"  # this provider cannot do it, another may
    AUTH = "auth"  # our credentials are refused
    PAYMENT = "payment"  # our account there is empty
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    NETWORK = "network"  # the provider was not reached, or its answer to a question was lost
    PROVIDER_ERROR = "provider_error"
    TIMEOUT = "timeout"  # the provider gave up waiting, or we did
    BAD_OUTPUT = "bad_output"  # it says that it succeeded, and there is no clean output
    LOST = "lost"  # it no longer knows the attempt
    CANCELED = "canceled"  # somebody stopped the attempt over there
    UNCERTAIN = "uncertain"  # the order was sent and not answered: it may be done, and paid for


class ProviderError(Exception):
    """Root of what providers raise."""


class ProviderFailure(ProviderError):
    """
    A provider could not do the task; `detail` and `code` hold ids and codes, never content or URLs.

    `after_s` is when the provider wants to be asked again. `is_unsent` says that nothing of the task has left us, so
    that no copy can be there. `is_unanswered` says that the question failed, which says nothing of the attempt that it
    was about. `cost_usd` is what the failure costs, where the provider says so.
    """

    def __init__(
        self,
        kind: FailureKind,
        detail: str = "",
        *,
        after_s: float | None = None,
        is_unsent: bool = False,
        is_unanswered: bool = False,
        cost_usd: float | None = None,
    ) -> None:
        super().__init__(f"{kind}: {detail}" if detail else str(kind))
        self.kind = kind
        self.detail = detail
        self.after_s = after_s
        self.is_unsent = is_unsent
        self.is_unanswered = is_unanswered
        self.cost_usd = cost_usd
