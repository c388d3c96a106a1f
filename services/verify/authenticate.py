"""Runs SPF, DKIM, DMARC and ARC for a message: at once where DNS is known, else awaiting what they miss.

A result that DNS or our own code kept from being known is temperror; nothing here raises for it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import structlog
from msgspec.structs import replace

from libs.mail.author import Author, author
from libs.mail.forged import claims
from libs.mail.headers import head_length
from libs.mail.records import Enforce, Trace, Verdict
from libs.runtime.clock import Clock
from services.verify import arc, dkim, dmarc, signed
from services.verify.heavy import Overrun, Pool
from services.verify.identities import UNKNOWN, Identities, Narrow, Resolver, identities
from services.verify.sealing import Sealer, seal
from services.verify.verdict import Found, domain_of, of_spf, verdict

HEAVY = 256 * 1024  # octets of a signed body, or of a header, from which on the pool does the work
_KEYS = 6  # key records asked for at a time; in all there are dkim.SIGNATURES and arc.KEYS
_LEAST = 0.1  # of the time that an evaluation has, for what only the results of SPF and DKIM make necessary
_log = structlog.get_logger()


class Remote(Protocol):
    """A content that the pool's process reads for itself."""

    def read(self) -> bytearray: ...


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


class _Content(NamedTuple):
    """What a content says: its header, what is signed in it, the author (None: not known), ranges of forged
    fields (None: not known)."""

    head: bytes
    examined: signed.Examined
    checked: signed.Checked
    author: Author | None
    strip: tuple[tuple[int, int], ...] | None


class Authenticator:
    """`hosts`: our host names, any of which a forged field may claim; `authserv_id`: the one that we write;
    `within_s`: when an evaluation ends, whatever DNS has said by then (RFC 7208 section 4.6.4); `enforced`:
    what a relay domain wants refused; `sealer`: who seals, nobody for None; `trusted`: domains whose seals
    are believed; `received_spf`: that field is wanted, too."""

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
        sealer: Sealer | None = None,
        trusted: Iterable[str] = (),
        received_spf: bool = False,
    ) -> None:
        self._dns, self._clock, self._pool = dns, clock, pool
        self._id, self._ours, self._within_s = authserv_id, tuple({authserv_id, *hosts}), within_s
        self._enforced, self._sealer, self._trusted = enforced, sealer, frozenset(trusted)
        self._received_spf = received_spf
        self._identities = Identities(dns, clock, within_s)
        self._large = asyncio.Semaphore()  # one large content is given to the pool at a time

    def now(self, id_: str, trace: Trace, content: bytes) -> Verdict | None:
        """The verdict, if nothing has to be awaited for it and it takes no longer than a few milliseconds."""
        try:
            return self._now(id_, trace, content)
        except Exception:
            _log.exception("a message could not be authenticated at once")
            return None  # the slow way says what could not be known

    def _now(self, id_: str, trace: Trace, octets: bytes) -> Verdict | None:
        head = octets[: head_length(octets)]
        if len(head) > dkim.HEAD_OCTETS:
            return None
        examined = signed.examine(head, self._clock.wall(), seals=self._sealer is not None)
        body, keys = b"", self._cached_keys(examined)
        if keys is None:
            return None
        if examined.needs_body:
            if len(octets) > HEAVY:
                return None
            body = octets[len(head) + 2 :]
        checked = signed.check(head, body, examined, keys)
        mailfrom, helo = identities(trace)
        of_helo = self._identities.known(helo)
        of_mailfrom = self._identities.known(mailfrom) if mailfrom else None
        if of_helo is None or (mailfrom and of_mailfrom is None):
            return None
        known = dmarc.identifiers(_sender(trace), of_mailfrom or of_helo, checked.signatures)
        names = _author(head, examined)
        of_author = self._identities.known_author(names, known)
        if of_author is None:
            return None
        content = _Content(head, examined, checked, names, claims(head, *self._ours))
        found = Found(of_mailfrom, of_helo, checked.signatures, of_author, checked.chain, content.strip)
        return self._said(id_, trace, found, content)

    async def verdict(self, id_: str, trace: Trace, message: Message) -> Verdict:
        """The verdict, within `within_s` and the time that the pool takes."""
        found, content = await self._found(trace, message)
        return self._said(id_, trace, found, content)

    async def found(self, trace: Trace, message: Message | None) -> Found:
        """What a verdict is made of; without a message there are no signatures and no author."""
        return (await self._found(trace, message))[0]

    def why(self, trace: Trace, found: Found) -> tuple[str, str]:
        """(of MAIL FROM, of HELO): what decided SPF, as long as the result is remembered; else ""."""
        mailfrom, helo = identities(trace)
        return self._identities.why(mailfrom, found.mailfrom), self._identities.why(helo, found.helo)

    async def without_content(self, id_: str, trace: Trace, reason: str) -> Verdict:
        """The verdict for a message whose content did not come together: accepted, whatever SPF says."""
        mailfrom, helo = identities(trace)
        of_helo, of_mailfrom = await asyncio.gather(
            self._identities.sender(helo), self._identities.sender(mailfrom)
        )
        assert of_helo is not None
        lost = dkim.Checked(dkim.Result.TEMPERROR, reason)
        found = Found(of_mailfrom, of_helo, (lost,), UNKNOWN, arc.Checked(arc.Result.NONE), None)
        return self._with_spf(verdict(id_, trace, found, self._id), trace, found)

    async def _found(self, trace: Trace, message: Message | None) -> tuple[Found, _Content]:
        began = self._clock.mono()
        mailfrom, helo = identities(trace)
        of_helo, of_mailfrom, content = await asyncio.gather(
            self._identities.sender(helo),
            self._identities.sender(mailfrom),
            self._content(message) if message else _nothing(),
        )
        assert of_helo is not None
        signatures, chain = content.checked.signatures, content.checked.chain
        known = dmarc.identifiers(_sender(trace), of_mailfrom or of_helo, signatures)
        left_s = self._within_s - (self._clock.mono() - began)
        of_author = await self._identities.author(content.author, known, max(left_s, _LEAST * self._within_s))
        return Found(of_mailfrom, of_helo, signatures, of_author, chain, content.strip), content

    def _said(self, id_: str, trace: Trace, found: Found, content: _Content) -> Verdict:
        said = verdict(id_, trace, found, self._id, self._enforced(trace.domain), self._trusted)
        said = self._with_spf(said, trace, found)
        if self._sealer is None or not content.checked.digest:
            return said
        sealed = seal(
            content.head,
            content.checked.digest,
            content.examined.chain,
            found.chain,
            said.fields,
            self._sealer,
            self._clock.wall(),
        )
        return replace(said, fields=sealed + said.fields)

    def _with_spf(self, said: Verdict, trace: Trace, found: Found) -> Verdict:
        if not self._received_spf:
            return said
        return replace(said, above=of_spf(trace, found, self.why(trace, found), self._id))

    # --- what is signed, and forged fields ---

    def _cached_keys(self, examined: signed.Examined) -> dict[str, dkim.Answer] | None:
        keys: dict[str, dkim.Answer] = {}
        for name in examined.key_names:
            if (answer := self._dns.cached(name, "TXT")) is None:
                return None
            keys[name] = answer
        return keys

    async def _content(self, message: Message) -> _Content:
        head, examined, names, strip = b"", signed.Examined(), None, None
        try:
            head, strip = await self._head(message)
            examined = signed.examine(head, self._clock.wall(), seals=self._sealer is not None)
            names = _author(head, examined)
            # What the author's domain wishes is asked meanwhile: afterwards there may be no time left.
            keys, _ = await asyncio.gather(
                self._keys(examined), self._identities.author(names, (), self._within_s)
            )
            checked = await self._checked(message, head, examined, keys)
            return _Content(head, examined, checked, names, strip)
        except Overrun:
            reason = "verification took too long"
        except Exception:
            _log.exception("the signatures of a message could not be verified")
            reason = "verification failed"
        return _Content(head, examined, signed.unknown(examined, reason), names, strip)

    async def _checked(
        self, message: Message, head: bytes, examined: signed.Examined, keys: Mapping[str, dkim.Answer]
    ) -> signed.Checked:
        """Raises Overrun."""
        if not examined.needs_body:
            return signed.check(head, b"", examined, keys)
        if message.size <= HEAVY:
            octets = await message.whole()
            return signed.check(head, octets[len(head) + 2 :], examined, keys)
        async with self._large, message.elsewhere() as content:
            return await self._pool.run(_check, content, len(head), examined, keys)

    async def _head(self, message: Message) -> tuple[bytes, tuple[tuple[int, int], ...]]:
        """(the header, of one that is too large its beginning; the ranges of forged fields in all of it). The
        rest is not looked at for them, and not held while DNS takes its time. Raises Overrun."""
        content = await message.first(dkim.HEAD_OCTETS + len(b"\r\n\r\n"))
        head = content[: head_length(content)]
        if len(head) <= dkim.HEAD_OCTETS:
            return head, claims(head, *self._ours)
        async with self._large, message.elsewhere() as remote:  # a header without end
            return head, await self._pool.run(_claims, remote, self._ours)

    async def _keys(self, examined: signed.Examined) -> Mapping[str, dkim.Answer]:
        dns = Narrow(self._dns, _KEYS)
        tasks = {name: asyncio.ensure_future(dns.ask(name, "TXT")) for name in examined.key_names}
        if tasks:
            _, late = await asyncio.wait(tasks.values(), timeout=self._within_s)
            for task in late:
                task.cancel()
        return {name: task.result() if task.done() else _Unanswered() for name, task in tasks.items()}


async def _nothing() -> _Content:
    none = signed.Checked((), arc.Checked(arc.Result.NONE))
    return _Content(b"", signed.Examined(), none, Author(), ())


def _check(
    content: Remote, head_octets: int, examined: signed.Examined, keys: Mapping[str, dkim.Answer]
) -> signed.Checked:
    octets = memoryview(content.read())  # a slice of it is no copy
    return signed.check(bytes(octets[:head_octets]), octets[head_octets + 2 :], examined, keys)


def _claims(content: Remote, ours: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    octets = bytes(content.read())
    return claims(octets[: head_length(octets)], *ours)


def _author(head: bytes, examined: signed.Examined) -> Author:
    """A header of which nothing can be verified has no author that could be trusted either."""
    defect = examined.signatures.defect
    return Author(defect=defect) if defect else author(head)


def _sender(trace: Trace) -> str:
    """The domain that SPF speaks of (RFC 7208 section 2.4)."""
    return domain_of(trace.reverse_path) or trace.helo
