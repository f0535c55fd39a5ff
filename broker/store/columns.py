"""Structs as the columns of arrays that a statement unnests: many rows in one write."""

from collections.abc import Sequence

from broker.custody import NewCopy
from broker.jobs import Output, StoredUpload
from broker.notifications import Target

Columns = tuple[list[object], ...]


def of_copies(copies: Sequence[NewCopy]) -> Columns:
    """Holder, what, ref, detail."""
    return [c.holder for c in copies], [c.what for c in copies], [c.ref for c in copies], [c.detail for c in copies]


def of_uploads(uploads: Sequence[StoredUpload]) -> Columns:
    """What was given: n, what, blob, key_id, incarnation, media_type, size_bytes."""
    return (
        [u.n for u in uploads],
        [u.what for u in uploads],
        [u.blob for u in uploads],
        [u.key_id for u in uploads],
        [u.incarnation for u in uploads],
        [u.media_type for u in uploads],
        [u.size_bytes for u in uploads],
    )


def of_outputs(outputs: Sequence[Output]) -> Columns:
    """What was made: the columns of `outputs` from n to thumbnail_bytes."""
    return (
        [o.n for o in outputs],
        [o.blob for o in outputs],
        [o.key_id for o in outputs],
        [o.keyholder for o in outputs],
        [o.incarnation for o in outputs],
        [o.media_type for o in outputs],
        [o.size_bytes for o in outputs],
        [o.width for o in outputs],
        [o.height for o in outputs],
        [o.is_sealed for o in outputs],
        [o.thumbnail for o in outputs],
        [o.thumbnail_bytes for o in outputs],
    )


def of_wrapped_keys(outputs: Sequence[Output]) -> Columns:
    """What opens it: n, device_id, wrapped."""
    return (
        [o.n for o in outputs for _ in o.wrapped],
        [key.device_id for o in outputs for key in o.wrapped],
        [key.wrapped for o in outputs for key in o.wrapped],
    )


def of_targets(targets: Sequence[Target]) -> Columns:
    """Where somebody is told: channel, kind, target."""
    return [t.channel for t in targets], [t.channel.kind for t in targets], [t.address for t in targets]
