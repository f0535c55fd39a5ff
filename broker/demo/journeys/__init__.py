"""The journeys of `lethe demo --profile`: one app's user story each, on a running stack, with every claim checked."""

from typing import Final

from broker.demo.journeys import headpix, imaginex, m2r, xpictures

_ALL: Final = (xpictures.JOURNEY, m2r.JOURNEY, imaginex.JOURNEY, headpix.JOURNEY)
JOURNEYS: Final = {journey.profile: journey for journey in _ALL}
"""By the profile; that of `minimal` is the main job itself, in broker/demo/story.py."""
