"""An HTTPS server on loopback that is posted to.

async with HookServer(context) as hook:             # hook.port
    hook.status = 500; hook.headers = {"location": ...}
    await hook.got(2); hook.posts[0].headers, .body, .path
"""

import ssl
from collections.abc import Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.helpers.patience import until
from tests.helpers.policy_server import PolicyServer


class Posted(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: bytes


class HookServer(PolicyServer):
    """`posts`: what came, in order, whatever was answered."""

    def __init__(self, context: ssl.SSLContext, *, address: str = "127.0.0.1") -> None:
        super().__init__(context, "", address=address)
        self.posts: list[Posted] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        assert request.method == "POST"
        self.posts.append(Posted(str(request.url.path), dict(request.headers), await request.body()))
        await self.answering.wait()
        await Response("x" * 100_000, self.status, self.headers)(scope, receive, send)

    async def got(self, count: int) -> None:
        """Return once so many came."""
        await until(lambda: len(self.posts) >= count)
