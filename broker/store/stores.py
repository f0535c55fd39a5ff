"""Everything that outlives a request, as one value that use cases take."""

import msgspec

from broker.store.attempts import AttemptStore
from broker.store.audit import AuditStore
from broker.store.blobs import BlobStore
from broker.store.breaches import BreachStore
from broker.store.consents import ConsentStore
from broker.store.credits import CreditStore
from broker.store.custody import CustodyStore
from broker.store.database import Database
from broker.store.devices import DeviceStore
from broker.store.erasures import ErasureStore
from broker.store.held import HeldStore
from broker.store.holds import HoldStore
from broker.store.jobs import JobStore
from broker.store.keyholders import Keyholders
from broker.store.links import LinkStore
from broker.store.notices import NoticeStore
from broker.store.notifications import NotificationStore
from broker.store.outputs import OutputStore
from broker.store.processes import ProcessStore
from broker.store.receipts import ReceiptStore
from broker.store.requests import RequestStore
from broker.store.sessions import SessionStore
from broker.store.users import UserStore


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """Postgres' tables, the keyholders and the blob store."""

    database: Database
    jobs: JobStore
    custody: CustodyStore
    attempts: AttemptStore
    outputs: OutputStore
    devices: DeviceStore
    processes: ProcessStore
    users: UserStore
    links: LinkStore
    sessions: SessionStore
    receipts: ReceiptStore
    notifications: NotificationStore
    notices: NoticeStore
    consents: ConsentStore
    credits: CreditStore
    requests: RequestStore
    erasures: ErasureStore
    held: HeldStore
    audit: AuditStore
    holds: HoldStore
    breaches: BreachStore
    keys: Keyholders
    blobs: BlobStore


def make_stores(database: Database, keys: Keyholders, blobs: BlobStore) -> Stores:
    """Put the tables of one database beside keyholders and a blob store."""
    return Stores(
        database=database,
        jobs=JobStore(database),
        custody=CustodyStore(database),
        attempts=AttemptStore(database),
        outputs=OutputStore(database),
        devices=DeviceStore(database),
        processes=ProcessStore(database),
        users=UserStore(database),
        links=LinkStore(database),
        sessions=SessionStore(database),
        receipts=ReceiptStore(database),
        notifications=NotificationStore(database),
        notices=NoticeStore(database),
        consents=ConsentStore(database),
        credits=CreditStore(database),
        requests=RequestStore(database),
        erasures=ErasureStore(database),
        held=HeldStore(database),
        audit=AuditStore(database),
        holds=HoldStore(database),
        breaches=BreachStore(database),
        keys=keys,
        blobs=blobs,
    )
