"""One sentence for every way in which a job can end without a result; docs/errors.md lists them too."""

FAILURES: dict[str, str] = {
    "invalid_image": "The picture cannot be decoded or is too large, or a provider refused it or a parameter.",
    "unsupported": "The operation cannot be done with this picture.",
    "bad_output": "The model made something that is not a clean picture; it was destroyed.",
    "key_lost": "The upload's key was lost with its keyholder, so that nobody can open it; send the picture again.",
    "upload_lost": "The upload's ciphertext is no longer there; send the picture again.",
    "upload_damaged": "The upload's ciphertext was changed or cut while it waited; send the picture again.",
    "crashed_worker": "The workers that ran the job died; it is not run again.",
    "internal": "Something went wrong inside Lethe.",
    "not_started_in_time": "No worker was free before the job's start deadline; it was not run.",
    "not_finished_in_time": "The job was stopped at its deadline.",
    "operation_unavailable": "No worker can run this operation any more.",
    "output_too_large": "The output would have more pixels than this server makes.",
    "provider_overloaded": "The provider takes no more work at the moment.",
    "provider_timeout": "The provider did not answer in time.",
    "provider_canceled": "The provider stopped the work.",
    "provider_error": "The provider failed.",
    "provider_refused": "The provider refuses this server's account; its operator has to look.",
    "provider_unreachable": "The provider could not be reached.",
    "provider_lost_it": "The provider no longer knows the job.",
    "content_rejected": "The provider's moderation refused the picture, the words or the result.",
    "provider_uncertain": "Whether the provider did the work is not known; it is not asked again.",
    "upload_too_large": "The picture has more bytes than this server takes.",
    "unsupported_image": "The picture is not of a kind or size that this server takes.",
    "deadline_too_short": "The work would have taken longer than the deadline allows.",
    "too_many_requests": "A limit of this server was reached.",
    "consent_required": "A consent that this server asks for was missing.",
    "credits_required": "The job costs more credits than are free.",
    "device_key_required": "Its user had no device left to which the output could be sealed; it was destroyed.",
    "restricted": "Its user restricted processing.",
    "erasing": "Its user is being erased.",
    "refused": "A policy of this server refuses the job.",
}

UNDESCRIBED = "The job ended without a result."


def describe_failure(code: str) -> str:
    """Return the sentence for a failure code."""
    return FAILURES.get(code, UNDESCRIBED)
