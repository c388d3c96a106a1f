"""Runs SPF, DKIM and DMARC for a message: at once where DNS is known, else awaiting what they miss.

A result that DNS or our own code kept from being known is temperror; nothing here raises for it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, TypeVar

import structlog

from libs.mail.author import Author, author
from libs.mail.headers import claims, head_length
from libs.mail.records import Enforce, Trace, Verdict
from libs.runtime.clock import Clock
from services.verify import dkim, dmarc, spf
from services.verify.canonical import Body
from services.verify.heavy import Overrun, Pool
from services.verify.verdict import Found, domain_of, verdict

T = TypeVar("T")
U = TypeVar("U")

HEAVY = 256 * 1024  # octets of a signed body, or of a header, from which on the pool does the work
_REMEMBERED = 50_000  # SPF results, and as many of DMARC
_FEW = 3  # identifiers of a DMARC result that is remembered: more is no usual mail
_LEAST = 0.1  # of the time that an evaluation has, for what only the results of SPF and DKIM make necessary
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


class _Content(NamedTuple):
    """What a content says: a result for each signature, the author (None: not known), ranges of forged
    fields."""

    signatures: tuple[dkim.Checked, ...]
    author: Author | None
    strip: tuple[tuple[int, int], ...]


_Answers = dict[spf.Question, spf.Answer]  # found for one evaluation; they outlive their place in the cache
_Claim = tuple[tuple[str, ...], tuple[dmarc.Identifier, ...]]  # author domains, and who authenticated
_UNKNOWN = dmarc.Checked(dmarc.Result.TEMPERROR)


class Authenticator:
    """`hosts`: our host names, any of which a forged field may claim; `authserv_id`: the one that we write;
    `within_s`: when an evaluation ends, whatever DNS has said by then (RFC 7208 section 4.6.4); `enforced`:
    what a relay domain wants refused."""

    def __init__(
        self,
        dns: Resolver,
        clock: Clock,
        pool: Pool,
        *,
        authserv_id: str,
        hosts: Iterable[str],
        within_s: float,
        enforced: Callable[[str], Enforce] = lambda _: Enforce.OFF,
    ) -> None:
        self._dns, self._clock, self._pool = dns, clock, pool
        self._id, self._ours, self._within_s = authserv_id, tuple({authserv_id, *hosts}), within_s
        self._enforced = enforced
        self._results: dict[_Identity, spf.Checked] = {}
        self._authors: dict[_Claim, tuple[dmarc.Checked, float]] = {}
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
            signatures = dkim.verify(head, Body(content[len(head) + 2 :]), examined, keys)
        elif examined.defect:
            signatures = dkim.verify(head, Body(b""), examined, {})
        mailfrom, helo = _identities(trace)
        of_helo = self._known(helo)
        of_mailfrom = self._known(mailfrom) if mailfrom else None
        if of_helo is None or (mailfrom and of_mailfrom is None):
            return None
        known = dmarc.identifiers(_sender(trace), of_mailfrom or of_helo, signatures)
        of_author = self._known_author(_author(head, examined), known)
        if of_author is None:
            return None
        found = Found(of_mailfrom, of_helo, signatures, of_author, claims(head, *self._ours))
        return verdict(id_, trace, found, self._id, self._enforced(trace.domain))

    async def verdict(self, id_: str, trace: Trace, message: Message) -> Verdict:
        """The verdict, within `within_s` and the time that the pool takes."""
        found = await self.found(trace, message)
        return verdict(id_, trace, found, self._id, self._enforced(trace.domain))

    async def found(self, trace: Trace, message: Message | None) -> Found:
        """What a verdict is made of; without a message there are no signatures and no author."""
        began = self._clock.mono()
        mailfrom, helo = _identities(trace)
        of_helo, of_mailfrom, content = await asyncio.gather(
            self._spf(helo), self._spf(mailfrom), self._content(message) if message else _nothing()
        )
        assert of_helo is not None
        known = dmarc.identifiers(_sender(trace), of_mailfrom or of_helo, content.signatures)
        left_s = self._within_s - (self._clock.mono() - began)
        of_author = await self._dmarc(content.author, known, max(left_s, _LEAST * self._within_s))
        return Found(of_mailfrom, of_helo, content.signatures, of_author, content.strip)

    def why(self, trace: Trace) -> tuple[str, str]:
        """(of MAIL FROM, of HELO): what decided SPF, as long as the result is remembered; else ""."""
        mailfrom, helo = _identities(trace)
        return self._why(mailfrom), self._why(helo)

    async def without_content(self, id_: str, trace: Trace, reason: str) -> Verdict:
        """The verdict for a message whose content did not come together: accepted, whatever SPF says."""
        mailfrom, helo = _identities(trace)
        of_helo, of_mailfrom = await asyncio.gather(self._spf(helo), self._spf(mailfrom))
        assert of_helo is not None
        lost = dkim.Checked(dkim.Result.TEMPERROR, reason)
        return verdict(id_, trace, Found(of_mailfrom, of_helo, (lost,), _UNKNOWN, ()), self._id)

    # --- what DNS must say ---

    def _lookup(self, answers: _Answers) -> spf.Lookup:
        """From `answers`, else from the cache into them; raises Missing."""

        def lookup(name: str, rtype: str) -> spf.Answer:
            answer = answers.get((name, rtype)) or self._dns.cached(name, rtype)
            if answer is None:
                raise spf.Missing((name, rtype))
            answers[name, rtype] = answer
            return answer

        return lookup

    async def _settled(self, evaluate: Callable[[_Answers], T], within_s: float, late: T) -> T:
        """Evaluate, find what is missing, evaluate again; each round finds at least one more answer."""
        answers: _Answers = {}
        try:
            async with asyncio.timeout(within_s):
                while True:
                    try:
                        return evaluate(answers)
                    except spf.Missing as missing:
                        questions = missing.questions
                    found = await asyncio.gather(*(self._dns.ask(*question) for question in questions))
                    answers.update(zip(questions, found, strict=True))
        except TimeoutError:
            return late

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

    def _evaluate(self, identity: _Identity, answers: _Answers) -> spf.Result:
        """Raises Missing."""
        try:
            checked = spf.check_host(
                identity.client, identity.local, identity.domain, identity.helo, self._lookup(answers)
            )
        except Exception:
            _log.exception("SPF evaluation failed", domain=identity.domain)
            return spf.Result.TEMPERROR
        _remember(self._results, identity if checked.personal else identity._replace(local=""), checked)
        return checked.result

    async def _spf(self, identity: _Identity | None) -> spf.Result | None:
        if identity is None:
            return None
        if (known := self._known(identity)) is not None:
            return known
        return await self._settled(
            lambda answers: self._evaluate(identity, answers), self._within_s, spf.Result.TEMPERROR
        )

    # --- DMARC ---

    def _known_author(self, author: Author, known: tuple[dmarc.Identifier, ...]) -> dmarc.Checked | None:
        """The result, remembered or from what the DNS cache holds; None where something must be asked."""
        remembered = self._authors.get((author.domains, known))
        if remembered is not None and not author.defect and remembered[1] > self._clock.mono():
            return remembered[0]
        try:
            return self._judge(author, known, {})
        except spf.Missing:
            return None

    def _judge(self, author: Author, known: tuple[dmarc.Identifier, ...], answers: _Answers) -> dmarc.Checked:
        """Raises Missing."""
        try:
            checked, expires = dmarc.check(author, known, self._lookup(answers))
        except Exception:
            _log.exception("DMARC evaluation failed", domains=author.domains)
            return _UNKNOWN
        if not author.defect and len(author.domains) == 1 and len(known) <= _FEW:
            _remember(self._authors, (author.domains, known), (checked, expires))
        return checked

    async def _dmarc(
        self, author: Author | None, known: tuple[dmarc.Identifier, ...], within_s: float
    ) -> dmarc.Checked:
        if author is None:
            return _UNKNOWN
        if (at_once := self._known_author(author, known)) is not None:
            return at_once
        return await self._settled(lambda answers: self._judge(author, known, answers), within_s, _UNKNOWN)

    # --- DKIM and forged fields ---

    def _cached_keys(self, examined: dkim.Examined) -> dict[str, dkim.Answer] | None:
        keys: dict[str, dkim.Answer] = {}
        for name in _key_names(examined):
            if (answer := self._dns.cached(name, "TXT")) is None:
                return None
            keys[name] = answer
        return keys

    async def _content(self, message: Message) -> _Content:
        examined, names, strip = dkim.Examined(), None, tuple[tuple[int, int], ...]()
        try:
            head, strip = await self._head(message)
            examined = dkim.examine(head, self._clock.wall())
            names = _author(head, examined)
            if examined.defect or not examined.signatures:
                await self._dmarc(names, (), self._within_s)
                return _Content(dkim.verify(head, Body(b""), examined, {}), names, strip)
            # What the author's domain wishes is asked meanwhile: afterwards there may be no time left.
            keys, _ = await asyncio.gather(self._keys(examined), self._dmarc(names, (), self._within_s))
            if message.size <= HEAVY:
                octets = await message.whole()
                return _Content(
                    dkim.verify(head, Body(octets[len(head) + 2 :]), examined, keys), names, strip
                )
            async with self._large, message.elsewhere() as content:
                results = await self._pool.run(_verify, content, len(head), examined, keys)
            return _Content(results, names, strip)
        except Overrun:
            reason = "verification took too long"
        except Exception:
            _log.exception("DKIM verification failed")
            reason = "verification failed"
        results = tuple(one.checked(dkim.Result.TEMPERROR, reason) for one in examined.signatures)
        return _Content(results or (dkim.Checked(dkim.Result.TEMPERROR, reason),), names, strip)

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


async def _nothing() -> _Content:
    return _Content((), Author(), ())


def _verify(
    content: Remote, head_octets: int, examined: dkim.Examined, keys: Mapping[str, dkim.Answer]
) -> tuple[dkim.Checked, ...]:
    octets = content.read()
    return dkim.verify(octets[:head_octets], Body(octets[head_octets + 2 :]), examined, keys)


def _claims(content: Remote, ours: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    octets = content.read()
    return claims(octets[: head_length(octets)], *ours)


def _key_names(examined: dkim.Examined) -> set[str]:
    return {one.key_name for one in examined.signatures if one.refused is None}


def _author(head: bytes, examined: dkim.Examined) -> Author:
    """A header of which nothing can be verified has no author that could be trusted either."""
    return Author(defect=examined.defect) if examined.defect else author(head)


def _sender(trace: Trace) -> str:
    """The domain that SPF speaks of (RFC 7208 section 2.4)."""
    return domain_of(trace.reverse_path) or trace.helo


def _remember(results: dict[T, U], key: T, value: U) -> None:
    """The newest come last; beyond the room that there is the first goes."""
    results.pop(key, None)
    results[key] = value
    if len(results) > _REMEMBERED:
        del results[next(iter(results))]


def _identities(trace: Trace) -> tuple[_Identity | None, _Identity]:
    """(MAIL FROM, None for the null reverse-path; HELO)."""
    helo = _Identity(trace.client, trace.helo, trace.helo, "postmaster")
    if not trace.reverse_path:
        return None, helo
    local = trace.reverse_path.rpartition("@")[0]
    return _Identity(trace.client, trace.helo, domain_of(trace.reverse_path), local), helo
