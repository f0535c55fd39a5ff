"""A worker's /metrics, answered by a thread of its own; the loop goes on while that thread ends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, start_http_server

from broker.wire import host_and_port


@asynccontextmanager
async def metrics_served(listen: str, registry: CollectorRegistry) -> AsyncGenerator[str]:
    """Answer inside the block; yield the URL."""
    host, port = host_and_port(listen)
    server, serving = start_http_server(port, host, registry=registry)
    try:
        yield f"http://{listen.rpartition(':')[0]}:{server.server_port}"
    finally:
        # The thread looks twice a second whether it has to end.
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        serving.join()
