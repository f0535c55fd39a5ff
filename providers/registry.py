"""Every adapter by the name that lethe.toml gives it; their terms can be read without making one."""

from typing import Protocol

from providers.base import Provider, Setup, Terms
from providers.cog import Cog
from providers.comfyui import ComfyUI
from providers.fal import Fal
from providers.http import Http
from providers.kserve import KServe
from providers.openai_images import OpenAIImages
from providers.replicate import Replicate


class Adapter(Protocol):
    """The class of an adapter: its terms, and how one is made."""

    @property
    def terms(self) -> Terms:
        """What holds for everything that it does."""
        ...

    def __call__(self, setup: Setup, /) -> Provider:
        """Make one; raise ProviderFailure or msgspec.ValidationError where its options are not right."""
        ...


ADAPTERS: dict[str, Adapter] = {
    "cog": Cog,
    "comfyui": ComfyUI,
    "fal": Fal,
    "http": Http,
    "kserve": KServe,
    "openai_images": OpenAIImages,
    "replicate": Replicate,
}
