"""An ASGI application on a socket, inside the loop of the process and without a hand on its signals."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from libs.runtime.config import Endpoint

_GRACE_S = 5  # what a request in flight may still take at the end


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to run.py."""
        yield


@asynccontextmanager
async def serving(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    """Answer requests on `listener` (bound; closed at the end) until the context is left."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    task = asyncio.ensure_future(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listener.close()


def tcp_socket(at: Endpoint) -> socket.socket:
    """Bound to `at`; port 0 picks a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in at.address else socket.AF_INET
    listener = socket.create_server((at.address, at.port), family=family)
    listener.setblocking(False)
    return listener


def unix_socket(path: Path) -> socket.socket:
    """Bound to `path` for our user alone, from before anybody can connect; a stale one is replaced.

    The caller knows that no other process serves it. Raises OSError.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o600)  # noqa: PTH101 nobody can connect before listen()
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
