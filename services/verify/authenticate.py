"""Runs SPF and DKIM for a message: at once where DNS is known, else awaiting what they miss.

A result that DNS or our own code kept from being known is temperror; nothing here raises for it.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import structlog

from libs.mail.headers import claims, head_length
from libs.mail.records import Trace, Verdict
from libs.runtime.clock import Clock
from services.verify import dkim, spf
from services.verify.heavy import Overrun, Pool
from services.verify.verdict import Found, domain_of, verdict

HEAVY = 256 * 1024  # octets of a signed body, or of a header, from which on the pool does the work
_REMEMBERED = 50_000  # SPF results
_log = structlog.get_logger()


class Resolver(Protocol):
    """What is used of libs/runtime/dns.py."""

    async def ask(self, name: str, rtype: str) -> spf.Answer: ...
    def cached(self, name: str, rtype: str) -> spf.Answer | None: ...


class Remote(Protocol):
    """A content that the pool's process reads for itself."""

    def read(self) -> bytes: ...


class Message(Protocol):
    """A content of `size` octets. `first`: so many of it, or all; `whole`: all of them; `elsewhere`: none of
    them here, while the pool reads them."""

    @property
    def size(self) -> int: ...
    async def first(self, octets: int) -> bytes: ...
    async def whole(self) -> bytes: ...
    def elsewhere(self) -> AbstractAsyncContextManager[Remote]: ...


class _Unanswered(NamedTuple):
    """The answer to a question that was given up."""

    kind: str = "timeout"
    records: tuple[str | tuple[int, str], ...] = ()
    expires: float = 0.0


class _Identity(NamedTuple):
    client: str
    helo: str
    domain: str
    local: str


class Authenticator:
    """`hosts`: our host names, any of which a forged field may claim; `authserv_id`: the one that we write;
    `within_s`: when an evaluation ends, whatever DNS has said by then (RFC 7208 section 4.6.4)."""

    def __init__(
        self,
        dns: Resolver,
        clock: Clock,
        pool: Pool,
        *,
        authserv_id: str,
        hosts: Iterable[str],
        within_s: float,
    ) -> None:
        self._dns, self._clock, self._pool = dns, clock, pool
        self._id, self._ours, self._within_s = authserv_id, tuple({authserv_id, *hosts}), within_s
        self._results: dict[_Identity, spf.Checked] = {}
        self._large = asyncio.Semaphore()  # one large content is given to the pool at a time

    def now(self, id_: str, trace: Trace, content: bytes) -> Verdict | None:
        """The verdict, if nothing has to be awaited for it and it takes no longer than a few milliseconds."""
        try:
            return self._now(id_, trace, content)
        except Exception:
            _log.exception("a message could not be authenticated at once")
            return None  # the slow way says what could not be known

    def _now(self, id_: str, trace: Trace, content: bytes) -> Verdict | None:
        head = content[: head_length(content)]
        if len(head) > dkim.HEAD_OCTETS:
            return None
        examined = dkim.examine(head, self._clock.wall())
        signatures: tuple[dkim.Checked, ...] = ()
        if examined.signatures and not examined.defect:
            keys = self._cached_keys(examined)
            if keys is None or len(content) > HEAVY:
                return None
            signatures = dkim.verify(head, content[len(head) + 2 :], examined, keys)
        elif examined.defect:
            signatures = dkim.verify(head, b"", examined, {})
        mailfrom, helo = _identities(trace)
        of_helo = self._known(helo)
        of_mailfrom = self._known(mailfrom) if mailfrom else None
        if of_helo is None or (mailfrom and of_mailfrom is None):
            return None
        found = Found(of_mailfrom, of_helo, signatures, claims(head, *self._ours))
        return verdict(id_, trace, found, self._id)

    async def verdict(self, id_: str, trace: Trace, message: Message) -> Verdict:
        """The verdict, within `within_s` and the time that the pool takes."""
        return verdict(id_, trace, await self.found(trace, message), self._id)

    async def found(self, trace: Trace, message: Message | None) -> Found:
        """What a verdict is made of; without a message there are no signatures."""
        mailfrom, helo = _identities(trace)
        of_helo, of_mailfrom, (signatures, strip) = await asyncio.gather(
            self._spf(helo), self._spf(mailfrom), self._dkim(message) if message else _nothing()
        )
        assert of_helo is not None
        return Found(of_mailfrom, of_helo, signatures, strip)

    def why(self, trace: Trace) -> tuple[str, str]:
        """(of MAIL FROM, of HELO): what decided SPF, as long as the result is remembered; else ""."""
        mailfrom, helo = _identities(trace)
        return self._why(mailfrom), self._why(helo)

    async def without_content(self, id_: str, trace: Trace, reason: str) -> Verdict:
        """The verdict for a message whose content did not come together."""
        mailfrom, helo = _identities(trace)
        of_helo, of_mailfrom = await asyncio.gather(self._spf(helo), self._spf(mailfrom))
        assert of_helo is not None
        lost = dkim.Checked(dkim.Result.TEMPERROR, reason)
        return verdict(id_, trace, Found(of_mailfrom, of_helo, (lost,), ()), self._id)

    # --- SPF ---

    def _known(self, identity: _Identity) -> spf.Result | None:
        """The result, remembered or from what the DNS cache holds; None where something must be asked."""
        for key in (identity._replace(local=""), identity):
            checked = self._results.get(key)
            if checked is not None and checked.expires > self._clock.mono():
                return checked.result
        try:
            return self._evaluate(identity, {})
        except spf.Missing:
            return None

    def _why(self, identity: _Identity | None) -> str:
        if identity is None:
            return ""
        checked = self._results.get(identity._replace(local="")) or self._results.get(identity)
        return checked.reason if checked else ""

    def _evaluate(self, identity: _Identity, answers: dict[spf.Question, spf.Answer]) -> spf.Result:
        """Raises Missing. `answers`: found for this evaluation; they outlive their place in the cache."""

        def lookup(name: str, rtype: str) -> spf.Answer:
            answer = answers.get((name, rtype)) or self._dns.cached(name, rtype)
            if answer is None:
                raise spf.Missing((name, rtype))
            answers[name, rtype] = answer
            return answer

        try:
            checked = spf.check_host(identity.client, identity.local, identity.domain, identity.helo, lookup)
        except Exception:
            _log.exception("SPF evaluation failed", domain=identity.domain)
            return spf.Result.TEMPERROR
        key = identity if checked.personal else identity._replace(local="")
        self._results.pop(key, None)
        self._results[key] = checked
        if len(self._results) > _REMEMBERED:
            del self._results[next(iter(self._results))]
        return checked.result

    async def _spf(self, identity: _Identity | None) -> spf.Result | None:
        """Evaluate, find what is missing, evaluate again; each round finds at least one more answer."""
        if identity is None:
            return None
        if (known := self._known(identity)) is not None:
            return known
        answers: dict[spf.Question, spf.Answer] = {}
        try:
            async with asyncio.timeout(self._within_s):
                while True:
                    try:
                        return self._evaluate(identity, answers)
                    except spf.Missing as missing:
                        questions = missing.questions
                    found = await asyncio.gather(*(self._dns.ask(*question) for question in questions))
                    answers.update(zip(questions, found, strict=True))
        except TimeoutError:
            return spf.Result.TEMPERROR

    # --- DKIM and forged fields ---

    def _cached_keys(self, examined: dkim.Examined) -> dict[str, dkim.Answer] | None:
        keys: dict[str, dkim.Answer] = {}
        for name in _key_names(examined):
            if (answer := self._dns.cached(name, "TXT")) is None:
                return None
            keys[name] = answer
        return keys

    async def _dkim(self, message: Message) -> tuple[tuple[dkim.Checked, ...], tuple[tuple[int, int], ...]]:
        """(a result for each signature, the ranges of forged fields)."""
        examined, strip = dkim.Examined(), tuple[tuple[int, int], ...]()
        try:
            head, strip = await self._head(message)
            examined = dkim.examine(head, self._clock.wall())
            if examined.defect or not examined.signatures:
                return dkim.verify(head, b"", examined, {}), strip
            keys = await self._keys(examined)
            if message.size <= HEAVY:
                return dkim.verify(head, (await message.whole())[len(head) + 2 :], examined, keys), strip
            async with self._large, message.elsewhere() as content:
                return await self._pool.run(_verify, content, len(head), examined, keys), strip
        except Overrun:
            reason = "verification took too long"
        except Exception:
            _log.exception("DKIM verification failed")
            reason = "verification failed"
        results = tuple(one.checked(dkim.Result.TEMPERROR, reason) for one in examined.signatures)
        return results or (dkim.Checked(dkim.Result.TEMPERROR, reason),), strip

    async def _head(self, message: Message) -> tuple[bytes, tuple[tuple[int, int], ...]]:
        """(the header, of one that is too large its beginning; the ranges of forged fields in all of it). The
        rest is not looked at for them, and not held while DNS takes its time. Raises Overrun."""
        content = await message.first(dkim.HEAD_OCTETS + len(b"\r\n\r\n"))
        head = content[: head_length(content)]
        if len(head) <= dkim.HEAD_OCTETS:
            return head, claims(head, *self._ours)
        async with self._large, message.elsewhere() as remote:  # a header without end
            return head, await self._pool.run(_claims, remote, self._ours)

    async def _keys(self, examined: dkim.Examined) -> Mapping[str, dkim.Answer]:
        names = _key_names(examined)
        tasks = {name: asyncio.ensure_future(self._dns.ask(name, "TXT")) for name in names}
        if tasks:
            _, late = await asyncio.wait(tasks.values(), timeout=self._within_s)
            for task in late:
                task.cancel()
        return {name: task.result() if task.done() else _Unanswered() for name, task in tasks.items()}


async def _nothing() -> tuple[tuple[dkim.Checked, ...], tuple[tuple[int, int], ...]]:
    return (), ()


def _verify(
    content: Remote, head_octets: int, examined: dkim.Examined, keys: Mapping[str, dkim.Answer]
) -> tuple[dkim.Checked, ...]:
    octets = content.read()
    return dkim.verify(octets[:head_octets], octets[head_octets + 2 :], examined, keys)


def _claims(content: Remote, ours: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    octets = content.read()
    return claims(octets[: head_length(octets)], *ours)


def _key_names(examined: dkim.Examined) -> set[str]:
    return {one.key_name for one in examined.signatures if one.refused is None}


def _identities(trace: Trace) -> tuple[_Identity | None, _Identity]:
    """(MAIL FROM, None for the null reverse-path; HELO)."""
    helo = _Identity(trace.client, trace.helo, trace.helo, "postmaster")
    if not trace.reverse_path:
        return None, helo
    local = trace.reverse_path.rpartition("@")[0]
    return _Identity(trace.client, trace.helo, domain_of(trace.reverse_path), local), helo
