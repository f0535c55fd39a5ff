"""Reads a receipt aloud: checks its signature with keys at hand, and says in words what it states. No network."""

import re
from collections.abc import Iterator
from typing import Final

from broker.custody import OUR_EVIDENCE, Domain, Evidence
from broker.receipts import CopyLine, Receipt, ReceiptInvalid, verify

_VKEY: Final = re.compile(r"[^\s+\"]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*")

EVIDENCE_WORDS: Final[dict[Evidence, str]] = {
    Evidence.SHREDDED: "destroyed; asked again on another connection, the keyholder had none",
    Evidence.ABSENT: "deleted, and then seen absent in the blob store",
    Evidence.UNREADABLE: "the blob store did not answer; its key is destroyed, so what may be left cannot be opened",
    Evidence.PROCESS_EXITED: "the process that held it has ended",
    Evidence.OVERWRITTEN: "its buffers were overwritten",
    Evidence.LEASE_ENDED: "its holder was killed by its guard before its lease ended",
    Evidence.DELETED_BY_API: "the provider says that it deleted it",
    Evidence.EXPIRES_BY: "the provider documents that it is deleted by then",
    Evidence.KEPT_BY_TERMS: "the provider keeps it, by its terms",
    Evidence.PURGE_PENDING: "the provider has not confirmed its deletion yet; asking goes on",
    Evidence.UNKNOWN: "nothing is known",
}

_THINGS: Final = {
    ("blob", "upload"): "upload, encrypted",
    ("key", "upload"): "key of the upload",
    ("process", "upload"): "upload in memory",
    ("blob", "parameters"): "parameters, encrypted",
    ("key", "parameters"): "key of the parameters",
    ("blob", "output"): "output, encrypted",
    ("key", "output"): "key of the output",
    ("provider", "upload"): "picture",
    ("provider", "output"): "output",
    ("provider", "record"): "record of the order",
}


class KeysInvalid(Exception):
    """No receipt key can be read there."""


def read_keys(text: str) -> list[str]:
    """Find the keys in what GET /v1/privacy/keys answered, or in a file with one key per line."""
    keys: list[str] = _VKEY.findall(text)
    if not keys:
        raise KeysInvalid("no receipt keys there; save the answer of GET /v1/privacy/keys in a file")
    return keys


def check(note: str, keys: list[str]) -> Receipt:
    """Return the receipt when a key signed it and it states every copy of ours as gone; raise ReceiptInvalid."""
    receipt = verify(note, keys)
    for copy in receipt.copies:
        if copy.domain == Domain.OURS and (not copy.closed_at or copy.evidence not in OUR_EVIDENCE):
            raise ReceiptInvalid(f"signed, but it does not say that this copy is gone: {thing(copy.holder, copy.what)}")
    return receipt


def thing(holder: str, what: str) -> str:
    """Say what a copy is."""
    return _THINGS.get((holder, what), f"{what} at {holder}")


def in_words(evidence: str) -> str:
    """Say how a copy is known to be gone."""
    return EVIDENCE_WORDS[Evidence(evidence)] if evidence in set(Evidence) else evidence


def sentences(receipt: Receipt) -> Iterator[str]:
    """Say what a receipt states, line by line."""
    yield f"Job {receipt.job} ({receipt.operation}) {receipt.outcome}{f': {receipt.code}' if receipt.code else ''}."
    yield f"Upload received {receipt.received_at}, outcome decided {receipt.decided_at}, settled {receipt.settled_at}."
    yield f"Policy profile {receipt.profile}; exposure {receipt.exposure}; revision {receipt.revision}."
    ours = [copy for copy in receipt.copies if copy.domain == Domain.OURS]
    others = [copy for copy in receipt.copies if copy.domain != Domain.OURS]
    yield f"In Lethe's own hands, and each gone: {_counted(ours)}."
    yield from (_line(copy) for copy in ours)
    if not others:
        yield "No copy went to a provider outside."
        return
    yield f"Sent to providers outside: {_counted(others)}."
    yield from (_line(copy) for copy in others)


def _counted(copies: list[CopyLine]) -> str:
    return "1 copy" if len(copies) == 1 else f"{len(copies)} copies"


def _line(copy: CopyLine) -> str:
    when = f" ({copy.closed_at})" if copy.closed_at else ""
    whose = f" at {copy.provider}" if copy.provider else ""
    until = f", until {copy.until}" if copy.until else ""
    return f"  {thing(copy.holder, copy.what)}{whose}: {in_words(copy.evidence)}{until}{when}"
