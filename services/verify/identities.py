"""What DNS says of a sender (SPF) and of an author (DMARC): at once where its answers are known, else after
asking for what is missing; remembered as long as the answers hold.

What DNS or our own code kept from being known is temperror; nothing here raises for it.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import structlog

from libs.mail.author import Author
from libs.mail.records import Trace
from libs.runtime.clock import Clock
from services.verify import dmarc, spf
from services.verify.verdict import domain_of

T = TypeVar("T")
U = TypeVar("U")

UNKNOWN = dmarc.Checked(dmarc.Result.TEMPERROR)
_REMEMBERED = 50_000  # SPF results, and as many of DMARC
_FEW = 3  # identifiers of a DMARC result that is remembered: more is no usual mail
# What one mail may ask: a stranger wrote the names, and those that they lead to. HELO, MAIL FROM and each
# author have a share of their own, so that none of them is kept waiting by another's DNS.
_OF_SENDER, _OF_AUTHORS = 3, 6  # questions at a time
_ALL_OF_SENDER, _ALL_OF_AUTHORS = 48, 80  # of each of the two, of all authors; then it is not known
_log = structlog.get_logger()

_Answers = dict[spf.Question, spf.Answer]  # found for one evaluation; they outlive their place in the cache


class Resolver(Protocol):
    """What is used of libs/runtime/dns.py."""

    async def ask(self, name: str, rtype: str) -> spf.Answer: ...
    def cached(self, name: str, rtype: str) -> spf.Answer | None: ...


class Narrow:
    """A resolver that is asked no more than `at_once` questions at a time; the others wait in their order."""

    def __init__(self, dns: Resolver, at_once: int) -> None:
        self._dns = dns
        self._slots = asyncio.Semaphore(at_once)

    async def ask(self, name: str, rtype: str) -> spf.Answer:
        async with self._slots:
            return await self._dns.ask(name, rtype)


class Identity(NamedTuple):
    """Whom SPF is asked about (RFC 7208 section 2.3 and 2.4)."""

    client: str
    helo: str
    domain: str
    local: str


_Claim = tuple[tuple[str, ...], tuple[dmarc.Identifier, ...]]  # author domains, and who authenticated


class Identities:
    """`within_s`: when an evaluation ends, whatever DNS has said by then (RFC 7208 section 4.6.4)."""

    def __init__(self, dns: Resolver, clock: Clock, within_s: float) -> None:
        self._dns, self._clock, self._within_s = dns, clock, within_s
        self._results: dict[Identity, spf.Checked] = {}
        self._authors: dict[_Claim, tuple[dmarc.Checked, float]] = {}

    # --- SPF ---

    def known(self, identity: Identity) -> spf.Result | None:
        """The result, remembered or from what the DNS cache holds; None where something must be asked."""
        for key in (identity._replace(local=""), identity):
            checked = self._results.get(key)
            if checked is not None and checked.expires > self._clock.mono():
                return checked.result
        try:
            return self._evaluate(identity, {})
        except spf.Missing:
            return None

    def why(self, identity: Identity | None, result: spf.Result | None) -> str:
        """What made SPF say `result`, as long as it is remembered; else ""."""
        if identity is None:
            return ""
        checked = self._results.get(identity._replace(local="")) or self._results.get(identity)
        return checked.reason if checked and checked.result is result else ""

    def _evaluate(self, identity: Identity, answers: _Answers) -> spf.Result:
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

    async def sender(self, identity: Identity | None) -> spf.Result | None:
        """The result; None for no identity."""
        if identity is None:
            return None
        if (known := self.known(identity)) is not None:
            return known
        return await self._settled(
            lambda answers: self._evaluate(identity, answers),
            _Share(_OF_SENDER, _ALL_OF_SENDER, self._within_s),
            spf.Result.TEMPERROR,
        )

    # --- DMARC ---

    def known_author(self, author: Author, known: tuple[dmarc.Identifier, ...]) -> dmarc.Checked | None:
        """The result, remembered or from what the DNS cache holds; None where something must be asked."""
        if len(author.domains) <= 1:
            return self._known_one(author, known)
        found = [self._known_one(one, known) for one in _one_by_one(author)]
        settled = [checked for checked in found if checked is not None]
        return dmarc.deciding(settled) if len(settled) == len(found) else None

    def _known_one(self, author: Author, known: tuple[dmarc.Identifier, ...]) -> dmarc.Checked | None:
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
            return UNKNOWN
        if not author.defect and author.domains and len(known) <= _FEW:
            _remember(self._authors, (author.domains, known), (checked, expires))
        return checked

    async def author(
        self, author: Author | None, known: tuple[dmarc.Identifier, ...], within_s: float
    ) -> dmarc.Checked:
        """`known`: who authenticated; None for an author who could not be read. Of several each is looked at
        by itself, in a share of what one has."""
        if author is None:
            return UNKNOWN
        if (at_once := self.known_author(author, known)) is not None:
            return at_once
        authors = _one_by_one(author)
        share = _Share(max(1, _OF_AUTHORS // len(authors)), _ALL_OF_AUTHORS // len(authors), within_s)
        return dmarc.deciding(await asyncio.gather(*(self._of_one(one, known, share) for one in authors)))

    async def _of_one(
        self, author: Author, known: tuple[dmarc.Identifier, ...], share: "_Share"
    ) -> dmarc.Checked:
        if (at_once := self._known_one(author, known)) is not None:
            return at_once
        return await self._settled(lambda answers: self._judge(author, known, answers), share, UNKNOWN)

    # --- asking ---

    def _lookup(self, answers: _Answers) -> spf.Lookup:
        """From `answers`, else from the cache into them; raises Missing."""

        def lookup(name: str, rtype: str) -> spf.Answer:
            answer = answers.get((name, rtype)) or self._dns.cached(name, rtype)
            if answer is None:
                raise spf.Missing((name, rtype))
            answers[name, rtype] = answer
            return answer

        return lookup

    async def _settled(self, evaluate: Callable[[_Answers], T], share: "_Share", unknown: T) -> T:
        """Evaluate, find what is missing, evaluate again; each round finds at least one more answer.
        `unknown` when the share is used up."""
        answers: _Answers = {}
        dns, left = Narrow(self._dns, share.at_once), share.in_all
        try:
            async with asyncio.timeout(share.within_s):
                while True:
                    try:
                        return evaluate(answers)
                    except spf.Missing as missing:
                        questions = missing.questions
                    left -= len(questions)
                    if left < 0:
                        return unknown
                    found = await asyncio.gather(*(dns.ask(*question) for question in questions))
                    answers.update(zip(questions, found, strict=True))
        except TimeoutError:
            return unknown


class _Share(NamedTuple):
    """Of DNS, for one evaluation: questions at a time, in all, and seconds."""

    at_once: int
    in_all: int
    within_s: float


def _one_by_one(author: Author) -> list[Author]:
    return [Author((domain,)) for domain in author.domains]


def identities(trace: Trace) -> tuple[Identity | None, Identity]:
    """(MAIL FROM, None for the null reverse-path; HELO)."""
    helo = Identity(trace.client, trace.helo, trace.helo, "postmaster")
    if not trace.reverse_path:
        return None, helo
    local = trace.reverse_path.rpartition("@")[0]
    return Identity(trace.client, trace.helo, domain_of(trace.reverse_path), local), helo


def _remember(results: dict[T, U], key: T, value: U) -> None:
    """The newest come last; beyond the room that there is the first goes."""
    results.pop(key, None)
    results[key] = value
    if len(results) > _REMEMBERED:
        del results[next(iter(results))]
