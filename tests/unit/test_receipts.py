"""A receipt says what custody says, and only what its key has signed."""

import base64
import json
import string
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.custody import Copy, Domain, Evidence, Holder, What
from broker.jobs import Job, JobState, Outcome
from broker.receipts import (
    Receipt,
    ReceiptInvalid,
    Signer,
    canonical,
    exposure_of,
    provider_copies,
    statement,
    verify,
)
from providers.base import Exposure

AT = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
JOB = Job(
    id=uuid4(),
    public_id=UUID("00000000-0000-4000-8000-000000000001"),
    user_id="usr_x",
    operation="noop",
    parameters={},
    media_type="image/jpeg",
    profile="minimal",
    pool="gpu",
    state=JobState.SETTLING,
    outcome=Outcome.SUCCEEDED,
    code="",
    version=4,
    fence=3,
    owner=None,
    attempts=1,
    crashes=0,
    progress=1.0,
    open_copies=0,
    upload_bytes=5,
    fingerprint=b"f" * 32,
    created_at=AT,
    queued_at=AT,
    started_at=AT,
    decided_at=AT + timedelta(seconds=1),
    finalized_at=None,
    start_by=AT,
    finish_by=AT,
    outputs_until=None,
    charged=False,
    finish_within_s=9.0,
)


def copy(number: int, holder: Holder, what: What, evidence: Evidence | None) -> Copy:
    return Copy(
        id=number,
        job_id=JOB.id,
        domain=Domain.OURS,
        holder=holder,
        what=what,
        ref="ab",
        detail="",
        fence=1,
        opened_at=AT,
        closed_at=AT + timedelta(seconds=2) if evidence else None,
        evidence=evidence,
        is_served=False,
        is_sealed=False,
    )


COPIES = [
    copy(1, Holder.BLOB, What.UPLOAD, Evidence.ABSENT),
    copy(2, Holder.KEY, What.UPLOAD, Evidence.SHREDDED),
    copy(3, Holder.PROCESS, What.UPLOAD, Evidence.OVERWRITTEN),
    copy(4, Holder.BLOB, What.OUTPUT, None),
]


@pytest.fixture
def signer() -> Signer:
    return Signer("lethe.test/receipts", Ed25519PrivateKey.generate())


@pytest.fixture
def receipt() -> Receipt:
    return statement(JOB, COPIES, exposure="local", settled_at=AT + timedelta(seconds=2))


def test_a_receipt_names_every_copy_of_the_upload(receipt: Receipt) -> None:
    """Each custody row stands in it with how and when it closed; outputs are not uploads."""
    assert [(line.holder, line.evidence) for line in receipt.copies] == [
        ("blob", "absent"),
        ("key", "shredded"),
        ("process", "overwritten"),
    ]
    assert {line.closed_at for line in receipt.copies} == {"2026-01-02T03:04:07Z"}
    assert (receipt.received_at, receipt.decided_at) == ("2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z")


def test_a_receipt_tells_nothing_of_the_user_or_the_bytes(receipt: Receipt) -> None:
    """Neither user, internal id, blob name, key id, size nor fingerprint stands in it."""
    text = canonical(receipt)
    for secret in (str(JOB.user_id), str(JOB.id), JOB.fingerprint.hex(), "fingerprint", "ref", "bytes"):
        assert secret not in text


def test_a_signed_receipt_verifies(signer: Signer, receipt: Receipt) -> None:
    """The note's key, alone or among others, gives the same receipt back."""
    other = Signer("lethe.test/former", Ed25519PrivateKey.generate())

    assert verify(signer.sign(receipt), [signer.vkey]) == receipt
    assert verify(signer.sign(receipt), ["nonsense", other.vkey, signer.vkey]) == receipt


def test_a_signature_is_written_in_one_way(signer: Signer, receipt: Receipt) -> None:
    """Base64 leaves two spare bits at the end of a signature: they are zero, or the receipt is not valid."""
    note = signer.sign(receipt)
    digits = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    last = note[-3]
    assert note.endswith(f"{last}=\n")
    with pytest.raises(ReceiptInvalid):
        verify(f"{note[:-3]}{digits[digits.index(last) + 1]}=\n", [signer.vkey])


def test_no_byte_of_a_receipt_can_be_changed(signer: Signer, receipt: Receipt) -> None:
    """A changed byte anywhere makes the note invalid, or is not part of what is said."""
    note = signer.sign(receipt).encode()
    for at in range(len(note)):
        changed = bytearray(note)
        changed[at] ^= 1
        try:
            text = changed.decode()
        except UnicodeDecodeError:
            continue
        with pytest.raises(ReceiptInvalid):
            verify(text, [signer.vkey])


def test_another_key_does_not_count(signer: Signer, receipt: Receipt) -> None:
    """Neither a stranger's key nor a stranger's key under our name verifies."""
    note = signer.sign(receipt)
    for name in ("lethe.test/receipts", "lethe.test/other"):
        with pytest.raises(ReceiptInvalid):
            verify(note, [Signer(name, Ed25519PrivateKey.generate()).vkey])
    with pytest.raises(ReceiptInvalid):
        verify(note, [])


@pytest.mark.parametrize("cut", ["", "{}", "{}\n", "{}\n\n", "{}\n\n— x y\n", "no end", "\n\n\n"])
def test_what_is_no_note_is_refused(signer: Signer, cut: str) -> None:
    """Damage is an answer, not a crash."""
    with pytest.raises(ReceiptInvalid):
        verify(cut, [signer.vkey])


def test_a_signature_over_something_else_is_no_receipt(signer: Signer, receipt: Receipt) -> None:
    """A note of another type under the same key is refused."""
    other = msgspec.structs.replace(receipt, type="lethe/receipt/v2")
    with pytest.raises(ReceiptInvalid, match="version"):
        verify(signer.sign(other), [signer.vkey])


def test_the_text_is_canonical_json(receipt: Receipt) -> None:
    """One line, sorted keys, no spaces: the same statement has the same bytes anywhere."""
    text = canonical(receipt)
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert "\n" not in text


def test_the_key_line_is_a_signed_note_verifier_key(signer: Signer) -> None:
    """name+hash+base64(type ‖ key), as C2SP signed-note has it."""
    name, key_hash, encoded = signer.vkey.split("+", 2)
    assert (name, len(key_hash)) == ("lethe.test/receipts", 8)
    assert len(base64.b64decode(encoded)) == 33


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        ([], "none"),
        ([Evidence.DELETED_BY_API], "deleted"),
        ([Evidence.DELETED_BY_API, Evidence.EXPIRES_BY], "expires"),
        ([Evidence.PURGE_PENDING, Evidence.EXPIRES_BY], "pending"),
        ([Evidence.PURGE_PENDING, Evidence.KEPT_BY_TERMS], "kept"),
        ([Evidence.KEPT_BY_TERMS, Evidence.UNKNOWN], "unknown"),
        ([Evidence.DELETED_BY_API, None], "unknown"),
    ],
)
def test_the_least_certain_copy_at_a_provider_counts(evidence: list[Evidence | None], word: str) -> None:
    """One word for all of them is never more than what is known of the worst."""
    ours = copy(1, Holder.BLOB, What.UPLOAD, Evidence.ABSENT)
    theirs = [
        msgspec.structs.replace(copy(2 + n, Holder.PROVIDER, What.UPLOAD, known), domain=Domain.PROVIDER)
        for n, known in enumerate(evidence)
    ]
    assert provider_copies([ours, *theirs]) == word


@pytest.mark.parametrize(
    ("details", "exposure"),
    [
        ([], Exposure.LOCAL),
        (["ephemeral"], Exposure.EPHEMERAL),
        (["logged", "ephemeral"], Exposure.LOGGED),
        (["ephemeral", "public", "logged"], Exposure.PUBLIC),
    ],
)
def test_the_widest_exposure_counts(details: list[str], exposure: Exposure) -> None:
    """Of several providers that had the picture the one that shows it to most says who may have seen it."""
    ours = copy(1, Holder.BLOB, What.UPLOAD, Evidence.ABSENT)
    theirs = [
        msgspec.structs.replace(
            copy(2 + n, Holder.PROVIDER, What.UPLOAD, Evidence.EXPIRES_BY), domain=Domain.PROVIDER, detail=detail
        )
        for n, detail in enumerate(details)
    ]
    assert exposure_of([ours, *theirs]) is exposure
