"""A worker's /metrics, answered by a thread of its own, so that a busy loop delays nobody who looks."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import WSGIApplication

from prometheus_client import CollectorRegistry, make_wsgi_app  # pyright: ignore[reportUnknownVariableType]
from prometheus_client.exposition import ThreadingWSGIServer

LOOK_AGAIN_S = 0.1
"""How long the thread may take to see that it has to end; the loop goes on meanwhile."""


class _Silent(WSGIRequestHandler):
    """Logs no request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the library's
        """Say nothing."""


@asynccontextmanager
async def metrics_served(listen: str, registry: CollectorRegistry) -> AsyncGenerator[str]:
    """Answer inside the block; yield the URL."""
    host, _, port = listen.rpartition(":")
    app = cast("WSGIApplication", make_wsgi_app(registry))
    with make_server(host, int(port), app, ThreadingWSGIServer, _Silent) as server:
        serving = threading.Thread(target=server.serve_forever, args=(LOOK_AGAIN_S,), daemon=True)
        serving.start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            await asyncio.to_thread(server.shutdown)
            serving.join()
