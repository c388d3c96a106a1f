"""/livez, /readyz and /metrics of a process.

Liveness measures progress, not the process: 503 when a service that is ready made none for STALLED_S. One
that still restores is not ready; it may wait for a log that is away for as long as that takes.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import structlog
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libs.runtime.config import Endpoint
from libs.runtime.http import serving, tcp_socket, unix_socket
from libs.runtime.metrics import Metrics
from libs.runtime.processes import Children
from libs.runtime.run import CannotStart, Life, Phase

STALLED_S = 60.0


def application(lives: Sequence[Life], metrics: Metrics, children: Children | None = None) -> Starlette:
    """The three pages. The first two answer with what each service says of itself. `children`: the processes
    that this one speaks for."""

    def said(good: bool) -> JSONResponse:
        services = {life.name: {"phase": life.phase, "stalled_s": round(life.stalled_s, 1)} for life in lives}
        return JSONResponse({"ok": good, "services": services}, 200 if good else 503)

    async def livez(_: Request) -> Response:
        return said(not any(life.phase is Phase.READY and life.stalled_s > STALLED_S for life in lives))

    async def readyz(_: Request) -> Response:
        ready = children is None or children.ready()
        return said(ready and all(life.phase is Phase.READY for life in lives))

    async def metrics_page(_: Request) -> Response:
        registry = metrics.registry if children is None else await children.collected()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics_page)]
    )


async def health(
    at: Endpoint | Path,
    lives: Sequence[Life],
    metrics: Metrics,
    life: Life,
    children: Children | None = None,
) -> None:
    """Serve the pages at `at` (a path: on a Unix socket) until drained. Raises CannotStart."""
    try:
        listener = unix_socket(at) if isinstance(at, Path) else tcp_socket(at)
    except OSError as error:
        raise CannotStart(f"health.listen: {at} cannot be used: {os.strerror(error.errno or 0)}") from error
    async with serving(application(lives, metrics, children), listener):
        if isinstance(at, Endpoint):
            address, port = listener.getsockname()[:2]
            structlog.get_logger().info("health is served", address=address, port=port)
        life.ready()
        await life.must_drain.wait()
