"""Posts to the URLs of contacts, as strangers gave them: never to a forbidden address, whatever DNS says; by
name and certificate; no redirect is followed and no answer is read."""

import asyncio
import ipaddress
from typing import cast
from urllib.parse import urlsplit

import httpx

from libs.runtime.config import Config
from libs.runtime.dns import Dns
from libs.smtp.route import forbidden
from libs.smtp.tls import trusting
from services.control.webhook import Post

WITHIN_S = 10.0  # all of it
_MOST_ADDRESSES = 2  # of a host are tried


class Poster:
    """Of one process."""

    def __init__(self, config: Config, dns: Dns) -> None:
        dial, host = config.dial, config.host
        self._dns = dns
        self._allow = tuple(ipaddress.ip_network(network) for network in dial.allow)
        self._ours = (*host.ipv4, *host.ipv6)
        self._context = trusting(dial.authorities)

    async def post(self, url: str, what: Post) -> str:
        """ "" where it was taken (2xx), else why not. Never raises for trouble of theirs."""
        try:
            async with asyncio.timeout(WITHIN_S):
                return await self._post(url, what)
        except TimeoutError:
            return f"no answer within {WITHIN_S:g} s"

    async def _post(self, url: str, what: Post) -> str:
        host = urlsplit(url).hostname or ""
        answers = await asyncio.gather(self._dns.ask(host, "A"), self._dns.ask(host, "AAAA"))
        addresses = [cast("str", record) for answer in answers for record in answer.records]
        why = f"{host} has no address"
        for address in addresses[:_MOST_ADDRESSES]:
            if forbidden(address, self._allow, self._ours):
                why = f"{host} is at {address}, which is never dialled"
                continue
            try:
                status = await self._post_to(address, url, what)
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
                # ValueError: a name that TLS cannot hold
                why = f"{type(error).__name__}: {error}"
                continue
            return "" if 200 <= status < 300 else f"status {status}"
        return why

    async def _post_to(self, address: str, url: str, what: Post) -> int:
        """The status. Raises httpx.HTTPError, OSError (ssl.SSLError is one), ValueError."""
        asked = httpx.URL(url)
        async with (
            httpx.AsyncClient(verify=self._context, trust_env=False, timeout=WITHIN_S) as client,
            client.stream(
                "POST",
                asked.copy_with(host=address),
                content=what.body,
                headers={**what.headers, "host": asked.netloc.decode()},
                extensions={"sni_hostname": asked.host},
            ) as response,
        ):
            return response.status_code
