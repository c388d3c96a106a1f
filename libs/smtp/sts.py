"""MTA-STS policies (RFC 8461): found by DNS, fetched over HTTPS, kept for as long as they say.

A policy that was once there holds until it ends, whatever becomes of DNS and of the server it came from: who
can stand between us and the mail server can stand there, too (section 10.2).
"""

import asyncio
import ipaddress
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import structlog

from libs.runtime.clock import Clock
from libs.runtime.config import DialPart
from libs.runtime.dns import Dns, Kind
from libs.smtp import sts_file
from libs.smtp.route import forbidden
from libs.smtp.sts_policy import LONGEST, BadPolicy, Mode, Policy, policy_id, read_policy
from libs.smtp.tls import trusting

FETCH_S = 10.0  # for all of it: somebody's mail waits
BRIEFLY_S = 1.0  # likewise, where an older policy is in force
AGAIN_S = 300.0  # a policy that could not be fetched is asked for again after this (section 3.3)
FRESH_S = 86_400.0  # a kept one is fetched again after a day, or half of its time
_ROOM = 10_000  # domains remembered; the one put in first goes first
_MOST_ADDRESSES = 2  # of a policy server are tried

log = structlog.get_logger()


class NoPolicy(Exception):  # noqa: N818
    """It could not be fetched; the text says why."""


class _Kept(NamedTuple):
    """`ends`, `stale`: monotonic seconds."""

    id: str
    policy: Policy
    ends: float
    stale: float


class Policies:
    """Of all domains that mail goes to."""

    def __init__(self, dial: DialPart, dns: Dns, clock: Clock, folder: Path) -> None:
        """`folder`: where they are kept over a restart."""
        self._dns, self._clock, self._port = dns, clock, dial.policy_port
        self._allow = tuple(ipaddress.ip_network(network) for network in dial.allow)
        self._context = trusting(dial.authorities)
        self._file = folder / sts_file.NAME
        shift = clock.mono() - clock.wall()
        self._kept = {
            domain: _Kept(entry.id, entry.policy, entry.ends + shift, entry.stale + shift)
            for domain, entry in sts_file.load(self._file, clock.wall()).items()
        }
        self._failed: dict[str, tuple[str, float]] = {}  # domain -> the id that was wanted, when it failed
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._saving = asyncio.Lock()  # each save reads what is there

    async def of(self, domain: str) -> Policy | None:
        """The policy in force for `domain` (lower-case A-label), None where there is none. Never raises for
        trouble of theirs."""
        answer = await self._dns.ask(f"_mta-sts.{domain}", "TXT")
        announced = policy_id(cast("tuple[str, ...]", answer.records)) if answer.kind is Kind.OK else ""
        if announced and self._wanted(domain, announced):
            task = self._fetching.get(domain)
            if task is None:
                task = self._fetching[domain] = asyncio.create_task(self._fetch(domain, announced))
                task.add_done_callback(lambda _: self._fetching.pop(domain, None))
            await asyncio.wait({task}, timeout=None if self._in_force(domain) is None else BRIEFLY_S)
        return self._in_force(domain)

    def _in_force(self, domain: str) -> Policy | None:
        kept = self._kept.get(domain)
        return kept.policy if kept is not None and kept.ends > self._clock.mono() else None

    async def close(self) -> None:
        """End the fetches that are under way."""
        tasks = tuple(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wanted(self, domain: str, announced: str) -> bool:
        now, kept = self._clock.mono(), self._kept.get(domain)
        if kept is not None and kept.id == announced and kept.stale > now:
            return False
        failed = self._failed.get(domain)
        return failed is None or failed[0] != announced or now - failed[1] >= AGAIN_S

    async def _fetch(self, domain: str, announced: str) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                policy = read_policy(await self._get(f"mta-sts.{domain}"))
        except (NoPolicy, BadPolicy, TimeoutError) as error:
            why = str(error) or "timeout"
            log.warning("an MTA-STS policy cannot be had", domain=domain, error=why)
            _put(self._failed, domain, (announced, self._clock.mono()))
            return
        now = self._clock.mono()
        self._failed.pop(domain, None)
        fresh_s = min(FRESH_S, policy.max_age / 2)
        _put(self._kept, domain, _Kept(announced, policy, now + policy.max_age, now + fresh_s))
        wall = self._clock.wall()
        entry = sts_file.Entry(announced, policy, wall + policy.max_age, wall + fresh_s)
        async with self._saving:
            await asyncio.to_thread(sts_file.save, self._file, {domain: entry}, wall)
        if policy.mode is Mode.TESTING:
            log.info("an MTA-STS policy is being tested and not enforced", domain=domain)

    async def _get(self, host: str) -> bytes:
        """Raises NoPolicy: of all addresses the last one's reason."""
        answers = await asyncio.gather(self._dns.ask(host, "A"), self._dns.ask(host, "AAAA"))
        addresses = [cast(str, record) for answer in answers for record in answer.records]
        why = "no address"
        for address in addresses[:_MOST_ADDRESSES]:
            if forbidden(address, self._allow):
                why = f"{address} is never dialled"
                continue
            try:
                return await self._get_from(address, host)
            except (httpx.HTTPError, OSError, ValueError) as error:  # ValueError: a name that TLS cannot hold
                why = f"{type(error).__name__}: {error}"
        raise NoPolicy(why)

    async def _get_from(self, address: str, host: str) -> bytes:
        """Section 3.3: the certificate must be for `host`; no redirects, no caches; plain text.

        Raises NoPolicy, httpx.HTTPError, OSError (ssl.SSLError is one), ValueError.
        """
        place = f"[{address}]" if ":" in address else address
        name = host if self._port == 443 else f"{host}:{self._port}"
        async with (
            httpx.AsyncClient(verify=self._context, trust_env=False, timeout=FETCH_S) as client,
            client.stream(
                "GET",
                f"https://{place}:{self._port}/.well-known/mta-sts.txt",
                headers={"Host": name, "Accept-Encoding": "identity"},
                extensions={"sni_hostname": host},
            ) as response,
        ):
            if response.status_code != 200:
                raise NoPolicy(f"status {response.status_code}")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "text/plain":
                raise NoPolicy(f"content type {kind!r}")
            octets = b""
            async for chunk in response.aiter_raw():
                octets += chunk
                if len(octets) > LONGEST:
                    break  # read_policy says so
            return octets


def _put(kept: dict[str, Any], domain: str, what: Any) -> None:
    kept.pop(domain, None)
    kept[domain] = what
    while len(kept) > _ROOM:
        del kept[next(iter(kept))]
