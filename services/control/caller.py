"""Asks the control of the running service over its Unix socket. Where none runs and the log is the embedded
one, takes that log and asks the same application in this process.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from libs.runtime.config import Config
from services.control.door import ANSWER_S, SOCKET, WITHIN_S


class Failed(Exception):  # noqa: N818
    """What the person reads, in one sentence, and the exit code: 1 not done, 2 wrong use or configuration."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


async def ask(
    config: Config,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    params: dict[str, Any] | None = None,
    running: bool = False,
) -> Any:
    """The answer's JSON. `running`: only a running service can do it. Raises Failed."""
    async with calling(config, running=running) as client:
        return await call(client, method, path, body, params)


async def call(
    client: httpx.AsyncClient, method: str, path: str, body: Any, params: dict[str, Any] | None
) -> Any:
    """One request. Raises Failed."""
    try:
        response = await client.request(method, path, json=body, params=params)
    except httpx.HTTPError as error:
        raise Failed(f"the running service broke off: {error or type(error).__name__}") from error
    if response.is_success:
        if "stale" in response.headers:
            print("backupmx: the log is away; this is the last that was read from it", file=sys.stderr)
        return response.json()
    try:
        sentence = response.json()["error"]
    except (ValueError, KeyError) as error:
        raise Failed(f"the running service does not know {method} {path}") from error
    raise Failed(sentence, 2 if response.status_code == 400 else 1)


@asynccontextmanager
async def calling(config: Config, *, running: bool) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the running service, or to an application of our own over the log. Raises Failed."""
    path = config.state_directory / SOCKET
    timeout = httpx.Timeout(WITHIN_S + ANSWER_S + 10)
    if await _answers(path):
        # No TLS on a Unix socket: the certificates of the system are not read in vain.
        transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(verify=False, uds=str(path))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://control", timeout=timeout
        ) as client:
            yield client
        return
    if running or config.log.kind != "sqlite":
        raise Failed(f"no service answers on {path}: this needs a running control")
    async with (
        _own(config) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://control", timeout=timeout) as client,
    ):
        yield client


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def _own(config: Config) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """The application in this process. Imported here: most commands find a service, and start in half the
    time. Raises Failed."""
    from libs.runtime.run import CannotStart
    from services.control.api import application
    from services.control.borrowed import borrowed

    try:
        async with borrowed(config) as desk:
            yield httpx.ASGITransport(application(desk))
    except CannotStart as error:
        raise Failed(str(error)) from error
