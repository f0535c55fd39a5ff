"""The broker's composition root: both listeners in one process, on the plain asyncio loop."""

import asyncio
import contextlib
import functools
import signal
import socket
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import structlog
import uvicorn
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from broker.api.audit import list_audit
from broker.api.breaches import declare_breach, get_breach
from broker.api.consents import get_consents, put_consents
from broker.api.credits import get_credits, grant_credits
from broker.api.deps import HttpRequest, provide_caller
from broker.api.devices import add_device, delete_device, list_devices, list_missing
from broker.api.edge import Edge
from broker.api.events import job_events
from broker.api.gallery import delete_output, delete_outputs, list_outputs
from broker.api.health import get_live, get_ready
from broker.api.holds import confirm_hold, end_hold, list_holds, propose_hold, remove_child
from broker.api.hooks import take_hint
from broker.api.jobs import delete_job, get_job, get_receipt, list_jobs, put_job
from broker.api.links import give_token, link_subject, unlink_subject
from broker.api.methods import answer_options
from broker.api.notices import get_notice
from broker.api.notifications import get_notifications, put_notifications
from broker.api.openapi import get_openapi
from broker.api.operations import list_operations
from broker.api.operator import get_metrics, get_operator_health
from broker.api.outputs import get_output
from broker.api.posting import post_job
from broker.api.privacy import get_posture, list_receipt_keys
from broker.api.problems import answer_exception
from broker.api.protocol import ProblemProtocol, widen_descriptors
from broker.api.purchases import redeem_purchase
from broker.api.rights import (
    delete_me,
    get_export,
    get_me,
    get_request,
    list_requests,
    post_objection,
    put_restriction,
)
from broker.api.sealed import get_thumbnail, list_output_keys, put_output_key
from broker.api.serving import Disclosures
from broker.api.sessions import begin_session, end_session
from broker.api.telemetry import take_report
from broker.api.users import create_user
from broker.api.views import Pace
from broker.guard import Guard
from broker.intake import FORM_FACTOR
from broker.minting import Minting
from broker.operators import OperatorKeys
from broker.services import Services, open_services
from broker.settings import Settings, SettingsInvalid
from broker.store.processes import Facts
from broker.subjects import Subjects

log = structlog.get_logger()

FINISH_WITHIN_S = 4
KEEP_ALIVE_S = 75

CLIENT_ROUTES: list[HTTPRouteHandler] = [
    create_user,
    begin_session,
    end_session,
    put_job,
    post_job,
    get_job,
    list_jobs,
    delete_job,
    job_events,
    get_output,
    delete_output,
    list_outputs,
    delete_outputs,
    list_output_keys,
    put_output_key,
    get_thumbnail,
    add_device,
    list_devices,
    delete_device,
    list_missing,
    get_receipt,
    list_operations,
    get_credits,
    redeem_purchase,
    list_audit,
    list_receipt_keys,
    get_posture,
    get_notice,
    get_consents,
    put_consents,
    get_notifications,
    put_notifications,
    get_me,
    delete_me,
    get_export,
    put_restriction,
    post_objection,
    list_requests,
    get_request,
    take_hint,
    take_report,
    get_live,
    get_ready,
    get_openapi,
]
OPERATOR_ROUTES: list[HTTPRouteHandler] = [
    get_metrics,
    get_operator_health,
    grant_credits,
    propose_hold,
    confirm_hold,
    end_hold,
    list_holds,
    remove_child,
    declare_breach,
    get_breach,
    link_subject,
    give_token,
    unlink_subject,
]


def create_app(services: Services, *, closing: asyncio.Event, disclosures: Disclosures) -> ASGIApp:
    """Make the application that clients talk to."""
    minting = Minting(services.redis, services.policies, trusted_proxies=services.settings.trusted_proxies)
    given = {"closing": closing, "disclosures": disclosures, "pace": Pace(), "minting": minting}
    return _edged(services, _client_routes(), given)


def create_operator_app(services: Services) -> ASGIApp:
    """Make the application that operators talk to."""
    operators = OperatorKeys(services.settings.operator_keys_file)
    given = {"operators": operators, "subjects": Subjects(services.settings.subject_key_file)}
    return _edged(services, _operator_routes(), given)


async def serve(settings: Settings, *, guard: Guard) -> None:
    """Run a broker until SIGTERM or SIGINT."""
    closing = asyncio.Event()
    widen_descriptors()
    with bound(settings.listen) as client_socket, bound(settings.operator_listen) as operator_socket:
        facts = Facts(address=url_of(client_socket), operator_address=url_of(operator_socket))
        async with open_services(settings, role="broker", facts=facts, guard=guard) as services:
            with _signals(services, closing):
                async with listening(services, client_socket, operator_socket, closing=closing):
                    log.info("broker_started", worker_id=str(services.lease.process.id))
                    await closing.wait()
        log.info("broker_stopped")


@asynccontextmanager
async def listening(
    services: Services, client_socket: socket.socket, operator_socket: socket.socket, *, closing: asyncio.Event
) -> AsyncGenerator[None]:
    """Serve both listeners inside the block; leaving it lets answers finish, and ends those that only wait."""
    disclosures = Disclosures()
    services.lease.let_go = _let_go(services, disclosures)
    client = _Server(_config(create_app(services, closing=closing, disclosures=disclosures)))
    operator = _Server(_config(create_operator_app(services)))
    await services.watch.look()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(services.watch.run())
        tasks.create_task(client.serve(sockets=[client_socket]))
        tasks.create_task(operator.serve(sockets=[operator_socket]))
        try:
            yield
        finally:
            watching.cancel()
            close(services, closing)
            client.should_exit = operator.should_exit = True


def close(services: Services, closing: asyncio.Event) -> None:
    """Begin to stop: event streams and waiting requests end at once."""
    closing.set()
    services.changes.wake_all()


@contextlib.contextmanager
def bound(address: str) -> Generator[socket.socket]:
    """Listen on "host:port", where port 0 is any free one."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal():
        raise SettingsInvalid("LETHE_LISTEN and LETHE_OPERATOR_LISTEN have the form host:port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, int(port)), family=family, backlog=1024) as listener:
        # Connections inherit it; asyncio sets it only where the protocol number is given, and answers would wait 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """One listener of several in a process: signals are not its business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.contextmanager
def _signals(services: Services, closing: asyncio.Event) -> Generator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, close, services, closing)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _let_go(services: Services, disclosures: Disclosures) -> Any:
    async def let_go() -> None:
        disclosures.cut()
        await services.intake.let_go()

    return let_go


def _config(app: ASGIApp) -> uvicorn.Config:
    lifespan: Literal["off"] = "off"  # services are opened and closed around the servers
    return uvicorn.Config(
        app=app,  # pyright: ignore[reportArgumentType] - two spellings of the same protocol
        loop="asyncio",
        http=ProblemProtocol,
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=FINISH_WITHIN_S,
    )


def _edged(services: Services, app: ASGIApp, given: Mapping[str, object]) -> ASGIApp:
    most_bytes = services.policies.profile.limits.max_upload_bytes * FORM_FACTOR
    return Edge(app, given={"services": services, **given}, max_discard_bytes=most_bytes)


@functools.cache
def _client_routes() -> Litestar:
    given = ("services", "closing", "disclosures", "pace", "minting")
    return _routed(CLIENT_ROUTES, {**_all_given(given), "caller": Provide(provide_caller)})


@functools.cache
def _operator_routes() -> Litestar:
    return _routed(OPERATOR_ROUTES, _all_given(("services", "operators", "subjects")))


def _routed(routes: list[HTTPRouteHandler], dependencies: dict[str, Provide]) -> Litestar:
    """Make what leads from addresses to handlers: it takes a third of a second, and is the same for every broker."""
    return Litestar(
        route_handlers=[*answer_options(routes), *routes],
        dependencies=dependencies,
        exception_handlers={Exception: answer_exception},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
    )


def _all_given(names: Iterable[str]) -> dict[str, Provide]:
    return {name: _given(name) for name in names}


def _given(name: str) -> Provide:
    async def provide(request: HttpRequest) -> Any:
        return request.state[name]

    return Provide(provide)
