"""Every adapter that the contract suite runs over: a new one joins with one import and one line."""

from tests.emulators import cog, comfyui, fal, http, kserve, openai_images, replicate
from tests.emulators.case import Case

CASES: tuple[Case, ...] = (
    replicate.CASE,
    fal.CASE,
    openai_images.CASE,
    http.CASE,
    cog.CASE,
    comfyui.CASE,
    kserve.CASE,
)
