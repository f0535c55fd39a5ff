"""Who answers for a deployment, as its notices say it: whoever runs Lethe fills this in, and it decides nothing."""

from typing import Annotated

import msgspec

Line = Annotated[str, msgspec.Meta(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Publisher(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The controller, how it is reached, and where its servers stand; what is empty is left out of the notice."""

    app: Line = ""
    name: Line = ""
    address: Line = ""
    email: Line = ""
    officer: Line = ""
    """The data protection officer, or the representative in the Union, with an address."""
    authority: Line = ""
    """The supervisory authority that users may turn to."""
    region: Line = ""
    """Where its own servers and stores stand."""
    deletion_url: Line = ""
    """A page on which users ask for deletion without the app; Google Play wants its address."""
