"""Lets go of what the frames of a failed upload still hold: an exception keeps them, and they keep the last chunk."""

import traceback


def forget_frames(exc: BaseException) -> None:
    """
    Clear the local variables of every frame that an exception, its causes and its contexts have left.

    Without this, a chunk of the picture stays until Python's cycle collector comes by, though custody says otherwise.
    """
    seen: set[int] = set()
    chain: list[BaseException | None] = [exc]
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        chain += [one.__cause__, one.__context__]
