"""An HTTPS server on loopback that serves an MTA-STS policy.

async with PolicyServer(context, POLICY) as server:     # server.port
    server.policy = OTHER; server.status = 404; server.headers = {...}
    await server.stop(); await server.start()           # the same port
    server.answering.clear(); server.answering.set()    # takes questions and is silent meanwhile
    server.asked                                        # the Host of each request
"""

import asyncio
import socket
import ssl
from types import TracebackType
from typing import Self

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PATH = "/.well-known/mta-sts.txt"


class PolicyServer:
    """`context`: as a server, with its certificate; `asked`: (Host, path) of each request, in order."""

    def __init__(self, context: ssl.SSLContext, policy: str, *, address: str = "127.0.0.1") -> None:
        self.context, self.policy, self.address, self.port = context, policy, address, 0
        self.status, self.headers = 200, {"content-type": "text/plain"}
        self.answering = asyncio.Event()  # while it is not set, questions are taken and not answered
        self.answering.set()
        self.asked: list[tuple[str, str]] = []
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.asked.append((request.headers["host"], request.url.path))
        await self.answering.wait()
        await Response(self.policy, self.status, self.headers)(scope, receive, send)

    async def start(self) -> Self:
        listener = socket.create_server((self.address, self.port))
        self.port = int(listener.getsockname()[1])
        config = uvicorn.Config(
            self, http="h11", ws="none", lifespan="off", log_config=None, access_log=False
        )
        config.load()
        config.ssl = self.context
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._serve(self._server, listener))
        while not self._server.started:
            await asyncio.sleep(0.005)
            if self._task.done():
                self._task.result()
        return self

    async def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        with listener:
            await server._serve([listener])  # serve() would take the signals of the tests

    async def stop(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = self._server.force_exit = True
            await self._task
            self._server = self._task = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
