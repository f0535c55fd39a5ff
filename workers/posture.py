"""What only a worker knows of itself: how its children are fenced in, and where its models compute."""

from collections.abc import Mapping

from broker.posture import Fact, fact
from broker.prctl import landlock_version
from policies.posture import Demand
from providers.base import Provider
from workers.models.network import has_gpu


def facts_of(models: Mapping[str, Provider]) -> tuple[Fact, ...]:
    """State it, once the zygote has started: it does not where children cannot be fenced in by seccomp."""
    version = landlock_version()
    is_video = bool(models) and has_gpu()
    return (
        fact(Demand.SECCOMP, is_so=True),
        fact(
            Demand.LANDLOCK, is_so=version >= 1, value=f"version {version}" if version >= 1 else "the kernel has none"
        ),
        fact(Demand.NO_VIDEO_MEMORY, is_so=not is_video, value=_where(models, is_video=is_video)),
    )


def _where(models: Mapping[str, Provider], *, is_video: bool) -> str:
    if not models:
        return "no model runs here"
    return "ncnn on a GPU, through Vulkan" if is_video else "ncnn on the processor"
