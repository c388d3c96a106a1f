"""Does the domain of a reverse-path take no mail (RFC 7505)? Asked at MAIL, needed when RCPT is answered.

A reply or a DSN to such a sender can go nowhere, and its mail is forged. Trouble of DNS refuses nobody: what
is not known in time is taken for a domain like any other.
"""

import asyncio
from typing import cast

from libs.runtime.deps import Deps
from libs.runtime.dns import Answer, Kind
from libs.smtp.route import is_null_mx

WAIT_S = 2.0  # RCPT waits so long for the answer
MOST = 200  # questions in flight; a flood of made-up senders is not looked up


class Senders:
    """Answers come from the cache of deps.dns: for a domain seen lately this is a look-up in a dict."""

    def __init__(self, deps: Deps) -> None:
        self._dns = deps.dns
        self._asking: set[asyncio.Task[Answer]] = set()

    def expect(self, domain: str) -> None:
        """A mail from `domain` ("" for <>) is coming: have it looked up meanwhile."""
        if not domain or domain[0] == "[" or self._dns.cached(domain, "MX") or len(self._asking) >= MOST:
            return
        task = asyncio.ensure_future(self._dns.ask(domain, "MX"))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def null_mx(self, domain: str) -> bool | None:
        """None when that is not known yet."""
        if not domain or domain[0] == "[":
            return False
        answer = self._dns.cached(domain, "MX")
        return None if answer is None else _null(answer)

    async def find(self, domain: str) -> bool:
        """Wait for what expect() asked; False when it does not come in time."""
        if len(self._asking) >= MOST:
            return False
        try:
            async with asyncio.timeout(WAIT_S):
                return _null(await self._dns.ask(domain, "MX"))
        except TimeoutError:
            return False


def _null(answer: Answer) -> bool:
    return answer.kind is Kind.OK and is_null_mx(cast("list[tuple[int, str]]", list(answer.records)))
