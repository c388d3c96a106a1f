"""Sessions with primaries: one a relay domain, for all recipients that are asked about meanwhile.

Postfix slows a client down after 10 errors and drops it after 20 (smtpd_soft_error_limit and
smtpd_hard_error_limit): a session ends before that.
"""

import asyncio
import math
from collections import deque
from typing import NamedTuple, Protocol

import structlog

from libs.mail.reply import Foreign
from libs.mail.trouble import server
from libs.runtime.deps import Deps
from libs.smtp.client import Connection, Dialer, Fault, Stage
from libs.smtp.route import Place
from services.verify.asking import PACE_BURST, PACE_PER_S, Offered
from services.verify.finding import (
    Deliverable,
    Finding,
    Undeliverable,
    Unverifiable,
    classify,
    heard_elsewhere,
)
from services.verify.reaching import BUSY, Reach

BATCH = 8  # recipients in one transaction
ERRORS = 8  # negative answers after which a session ends
IDLE_S = 2.0  # a session waits so long for more to ask
WAITING = 200  # questions for one primary that may wait
_AWAY = ("closed", "malformed")  # in the first transaction, before any answer: the next would be no better

log = structlog.get_logger()


class Gait(NamedTuple):
    """How hard primaries are asked: `sessions` at a time in all, `per_address` of each dialled address, which
    hears `per_s` questions a second; a session ends after `questions`, so that others have their turn."""

    sessions: int
    per_address: int
    per_s: float
    burst: float
    questions: float = math.inf


SWIFT = Gait(200, 2, PACE_PER_S, PACE_BURST)  # somebody waits
GENTLE = Gait(20, 1, 1.0, 1.0, 20)  # nobody does


class Question(NamedTuple):
    """`control`: a recipient to ask about in the same session when this one, known deliverable, is denied; ""
    when this one is not known deliverable or there is no other."""

    mailbox: str
    domain: str
    key: bytes
    control: str = ""
    attempts: int = 0  # in the background
    anew: bool = False  # is it up, whatever is known of the recipient?
    gentle: bool = False  # nobody waits for the answer
    elsewhere: bool = False  # an MX of a worse preference may answer when the best one is not reached


class Listener(Protocol):
    """Told of what sessions bring; all return at once."""

    def refused(self, question: Question) -> str:
        """Why it must not be asked any more, or "": asked right before it is sent."""
        ...

    def told(self, question: Question, finding: Finding, control: bool | None) -> None:
        """The end of a question."""
        ...

    def place(self, domain: str) -> Place | None:
        """What its owner says of its primary."""
        ...

    def offered(self, domain: str, offered: Offered) -> None:
        """What the best MX said to EHLO."""
        ...

    def failed(self, domain: str, finding: Unverifiable) -> None:
        """No address of the best preference took us to MAIL. Each waiting question is told besides."""
        ...

    def beside(self, domain: str, *, answers: bool) -> None:
        """A worse preference was dialled in the place of the best one."""
        ...

    def held(self, domain: str) -> Unverifiable | None:
        """Why a worse preference is asked in the place of the best one now, or None."""
        ...


class _Line:
    """What is to be asked of one primary."""

    def __init__(self) -> None:
        self.waiting: deque[Question] = deque()
        self.arrived = asyncio.Event()
        self._ended = False

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self.arrived.set()

    async def more(self, within: float) -> bool:
        """Is there something to ask, or comes something within `within` seconds?"""
        if not self.waiting and not self._ended:
            self.arrived.clear()
            try:
                async with asyncio.timeout(within):
                    await self.arrived.wait()
            except TimeoutError:
                return False
        return bool(self.waiting)


class Calls:
    """`ask` returns at once; the listener hears the answer. `close` ends all sessions."""

    def __init__(self, deps: Deps, dialer: Dialer, listener: Listener, gait: Gait = SWIFT) -> None:
        self._listener, self._gait = listener, gait
        self._from = f"postmaster@{deps.config.host.name}"
        self._reach = Reach(
            deps,
            dialer,
            per_address=gait.per_address,
            per_s=gait.per_s,
            burst=gait.burst,
            place=listener.place,
        )
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions = asyncio.Semaphore(gait.sessions)

    def ask(self, question: Question) -> None:
        line = self._lines.get(question.domain)
        if line is None:
            line = self._lines[question.domain] = _Line()
            task = asyncio.create_task(self._serve(question.domain, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        line.waiting.append(question)
        line.arrived.set()

    def crowded(self, domain: str) -> str:
        """The word for a primary that so many questions wait for that one more would be in vain, or ""."""
        line = self._lines.get(domain)
        return "busy" if line is not None and len(line.waiting) >= WAITING else ""

    async def close(self, within: float) -> None:
        """End every session: what is asked has `within` seconds for its answer, what is not stays
        unanswered."""
        for line in self._lines.values():
            line.end()
        tasks = tuple(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=within)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._reach.close()

    async def _serve(self, domain: str, line: _Line) -> None:
        try:
            while line.waiting:
                async with self._sessions:
                    await self._session(domain, line)
        except Exception:
            log.exception("callouts of a domain failed", domain=domain)  # our bug: 4yz, never a negative
            self._tell_all(line, Unverifiable("error", blocked=False))
        finally:
            del self._lines[domain]

    def _give_up(self, line: _Line, domain: str, finding: Finding) -> None:
        """No session brings an answer just now: nobody waits for the next one to fail, too."""
        if isinstance(finding, Unverifiable) and finding is not BUSY:
            self._listener.failed(domain, finding)
        self._tell_all(line, finding)

    def _tell_all(self, line: _Line, finding: Finding) -> None:
        while line.waiting:
            self._listener.told(line.waiting.popleft(), finding, None)

    async def _session(self, domain: str, line: _Line) -> None:
        """One connection, from the first question to the last, or to the server's patience."""
        held = self._listener.held(domain)
        connection = held or await self._reach.connect(domain)
        if isinstance(connection, Unverifiable):
            await self._beside(domain, line, connection, known=held is not None)
            return
        address = connection.target.address
        try:
            self._listener.offered(domain, _offered(connection))
            errors, asked, first = 0, 0, True
            while connection.usable and errors < ERRORS and asked < self._gait.questions:
                if not await line.more(0 if self._reach.wanted(address) else IDLE_S):
                    break
                batch = self._batch(line, connection)
                if batch:
                    await self._reach.pace(address, len(batch))
                    errors += await self._ask(connection, batch, line, first=first)
                    asked += len(batch)
                    first = False
            if first and line.waiting:  # it left before it was asked anything
                self._give_up(line, domain, Unverifiable("closed", blocked=False))
            if connection.usable:
                await connection.quit()
        finally:
            self._reach.leave(connection)

    async def _beside(self, domain: str, line: _Line, why: Unverifiable, *, known: bool) -> None:
        """The best preference is not reached, for `why` (`known`: as was found a moment ago): who waits is
        asked about at a worse one, until it is the turn of the best one again."""
        if why is not BUSY and not known:
            self._listener.failed(domain, why)
        alone = why is BUSY or why.blocked or why.reason == "ourselves"  # no worse one is above us then
        if alone or not any(question.elsewhere for question in line.waiting):
            self._tell_all(line, why)
            return
        connection = await self._reach.beside(domain)
        self._listener.beside(domain, answers=connection is not None)
        if connection is None:
            self._tell_all(line, why)
            return
        address = connection.target.address
        try:
            errors, first = 0, True
            while connection.usable and errors < ERRORS:
                there = await line.more(0 if self._reach.wanted(address) else IDLE_S)
                if not there or self._listener.held(domain) is None:
                    break
                if batch := self._batch(line, connection):
                    await self._reach.pace(address, len(batch))
                    errors += await self._ask_beside(connection, batch, line, why, first=first)
                    first = False
            if connection.usable:
                await connection.quit()
            elif first:  # it left before it was asked anything
                self._tell_all(line, why)
        finally:
            self._reach.leave(connection)

    async def _ask_beside(
        self, connection: Connection, batch: list[Question], line: _Line, why: Unverifiable, *, first: bool
    ) -> int:
        """One transaction with a worse preference; returns how many negative answers it brought."""
        findings: list[Finding] = []

        def heard(index: int, stage: Stage, reply: Foreign) -> None:
            findings.append(classify(stage, reply))
            self._listener.told(batch[index], heard_elsewhere(findings[-1], why), None)

        try:
            await connection.verify(self._from, [question.mailbox for question in batch], heard)
        except Fault as fault:
            rest = batch[len(findings) :]
            if first or fault.reply is not None or fault.reason == "timeout":
                for question in rest:
                    self._listener.told(question, why, None)
            else:  # a kept session was closed meanwhile: again on a new one
                line.waiting.extendleft(reversed(rest))
        return sum(not isinstance(finding, Deliverable) for finding in findings)

    def _batch(self, line: _Line, connection: Connection) -> list[Question]:
        """The next questions that this server can be asked."""
        batch: list[Question] = []
        while line.waiting and len(batch) < BATCH:
            question = line.waiting.popleft()
            reason = self._listener.refused(question)
            if not reason and not question.mailbox.isascii() and "SMTPUTF8" not in connection.capabilities:
                reason = "smtputf8"
            if reason:
                self._listener.told(question, Unverifiable(reason, blocked=False), None)
            else:
                batch.append(question)
        return batch

    async def _ask(self, connection: Connection, batch: list[Question], line: _Line, *, first: bool) -> int:
        """One transaction; returns how many negative answers it brought. Each answer is told when it
        comes."""
        findings: list[Finding] = []
        denied: list[tuple[Question, Finding]] = []

        def heard(index: int, stage: Stage, reply: Foreign) -> None:
            finding = classify(stage, reply)
            findings.append(finding)
            if isinstance(finding, Undeliverable) and batch[index].control:
                denied.append((batch[index], finding))
            else:
                self._listener.told(batch[index], finding, None)

        rest: list[Question] = []
        try:
            await connection.verify(self._from, [question.mailbox for question in batch], heard)
        except Fault as fault:
            rest = batch[len(findings) :]
            finding = classify(fault.stage, fault.reply, fault.reason)
            if fault.reason == "timeout" or (first and not findings and fault.reason in _AWAY):
                line.waiting.extendleft(reversed(rest))
                rest = []
                self._give_up(line, batch[0].domain, finding)
            elif first or fault.reply is not None:
                for question in rest:
                    self._listener.told(question, finding, None)
                rest = []
        line.waiting.extendleft(reversed(rest))  # a kept session was closed meanwhile: again on a new one
        for question, finding in denied:
            self._listener.told(question, finding, await self._control(connection, question.control))
        return sum(not isinstance(finding, Deliverable) for finding in findings)

    async def _control(self, connection: Connection, mailbox: str) -> bool | None:
        """Is a recipient that must exist accepted in this session? None: it could not be asked."""
        if not connection.usable:
            return None
        try:
            ((stage, reply),) = await connection.verify(self._from, [mailbox])
        except Fault:
            return None
        match classify(stage, reply):
            case Deliverable():
                return True
            case Undeliverable():
                return False
            case _:
                return None


def _offered(connection: Connection) -> Offered:
    offered = connection.capabilities
    size = offered.get("SIZE", "")
    return Offered(
        int(size) if size.isascii() and size.isdigit() and len(size) < 19 else 0,
        "SMTPUTF8" in offered,
        "DSN" in offered,
        bool(connection.tls),
        server(connection.greeting, None),
    )
