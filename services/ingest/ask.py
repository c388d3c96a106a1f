"""Ask and wait: a question on `callouts`, the answer in the replica of `recipients`, one deadline for both.

However many sessions want to know of a recipient, one question is in flight. Where verify does not answer,
nobody waits any more but one session every 15 s (limits.Patience).
"""

import asyncio
from collections.abc import Iterable
from typing import TypeVar

import structlog

from libs.log.contract import LogError
from libs.mail import replies
from libs.mail.address import Mailbox
from libs.mail.records import Basis, Callout, encode
from libs.mail.reply import Reply
from libs.runtime.deps import Deps
from libs.runtime.dns import Kind
from services.ingest import policy
from services.ingest.known import Known
from services.ingest.limits import FULL_PATIENCE, Breakdowns, Load, Patience, Suspicions
from services.ingest.policy import Accept, Ask, Envelope, Facts, FindOut

PUBLISH_S = 5.0  # a question that cannot be published within this is not asked

T = TypeVar("T")

log = structlog.get_logger()


class Question:
    """In flight: `answered` is True after an update of the recipient, False at the deadline, None when it
    could not be published."""

    def __init__(self, answered: "asyncio.Future[bool | None]") -> None:
        self.answered = answered

    def end(self, how: bool | None) -> None:
        if not self.answered.done():
            self.answered.set_result(how)


class Asker:
    """Answers RCPT. `tasks`: what must be awaited before this process ends."""

    def __init__(self, deps: Deps, known: Known, breakdowns: Breakdowns) -> None:
        self._deps, self._known, self._breakdowns = deps, known, breakdowns
        self._deadline_s = deps.config.timing.rcpt_deadline_s
        self._suspicions = Suspicions()
        self._questions: dict[str, Question] = {}
        self._patience: dict[str, Patience] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.full = False  # the log's disk; the service looks from time to time

    def at_once(self, to: Mailbox, envelope: Envelope, client: str) -> Reply | Accept | Ask | FindOut:
        """What can be said without waiting; `client`: its network."""
        answer = policy.at_rcpt(to, self._facts(to, client), envelope, self._deps.clock.wall())
        return self._counted(answer, to, client)

    async def answer(self, to: Mailbox, pending: Ask | FindOut, client: str) -> Reply | Accept:
        """What at_once() left open."""
        if isinstance(pending, FindOut):
            return await self._find_out(pending.domain)
        question = self._question(to)
        answered: bool | None = False
        if pending.wait and question is not None:
            await asyncio.wait({question.answered})
            answered = question.answered.result()
        if answered is None:
            return replies.STORAGE_TROUBLE
        decide = policy.at_answer if answered else policy.at_deadline
        answer = decide(to, self._facts(to, client), self._deps.clock.wall())
        return self._counted(answer, to, client)

    def ahead(self, mailboxes: Iterable[Mailbox], envelope: Envelope, client: str) -> None:
        """Ask about recipients that the client has sent ahead, so that all answers are under way at once."""
        now = self._deps.clock.wall()
        for to in mailboxes:
            if isinstance(policy.at_rcpt(to, self._facts(to, client), envelope, now), Ask):
                self._question(to)

    def _facts(self, to: Mailbox, client: str) -> Facts:
        mono = self._deps.clock.mono()
        domain = to.domain or self._known.names.host
        failed = self._breakdowns.broken(self._known.partition(domain), mono)
        suspicious = self._suspicions.spent(client, to.domain, to.key, mono)
        return self._known.facts(to, Load(self.full, failed, suspicious))

    def _counted(self, answer: T, to: Mailbox, client: str) -> T:
        if isinstance(answer, Accept) and answer.basis is Basis.SUSPICION:
            self._suspicions.count(client, to.domain, to.key, self._deps.clock.mono())
        return answer

    def _question(self, to: Mailbox) -> Question | None:
        """The one in flight, or a new one; None when nobody is to be asked now."""
        if (question := self._questions.get(to.key)) is not None:
            return question
        now = self._deps.clock.mono()
        patience = self._patience.get(to.domain, FULL_PATIENCE)
        if not patience.waits(now):
            return None
        if patience is not FULL_PATIENCE:
            self._patience[to.domain] = patience.began(now)
        return self._ask(to)

    def _ask(self, to: Mailbox) -> Question:
        """Watch first, then publish: no answer can come unseen."""
        loop = asyncio.get_running_loop()
        key = to.key
        question = self._questions[key] = Question(loop.create_future())
        watches = [self._known.recipients.watch(name.encode()) for name in (key, f"try:{key}")]
        for watch in watches:
            watch.add_done_callback(lambda done: None if done.cancelled() else question.end(True))
        timer = loop.call_later(self._deadline_s, question.end, False)

        def ended(answered: "asyncio.Future[bool | None]") -> None:
            timer.cancel()
            for watch in watches:
                watch.cancel()
            del self._questions[key]
            if answered.result():
                self._patience.pop(to.domain, None)
            elif answered.result() is False:
                before = self._patience.get(to.domain, FULL_PATIENCE)
                self._patience[to.domain] = before.timed_out(self._deps.clock.mono())

        question.answered.add_done_callback(ended)
        task = loop.create_task(self._publish(to, question))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return question

    async def _publish(self, to: Mailbox, question: Question) -> None:
        callout = Callout(str(to), self._deps.config.host.name)
        partition = self._known.partition(to.domain)
        try:
            await self._deps.log.append(
                "callouts", partition, to.key.encode(), encode(callout), within=PUBLISH_S
            )
        except LogError as error:
            log.warning("question not published", domain=to.domain, error=str(error))
            self._breakdowns.failed(partition, self._deps.clock.mono())
            question.end(None)

    async def _find_out(self, domain: str) -> Reply:
        answer = await self._deps.dns.ask(domain, "MX")
        trouble = answer.kind in (Kind.TIMEOUT, Kind.SERVFAIL)
        hosts = {record[1] for record in answer.records if isinstance(record, tuple)}
        names_us = not hosts.isdisjoint(self._deps.config.installation.hosts)
        if names_us:
            self._deps.metrics.orphans.inc()
            log.warning("orphan domain: its MX names us, we do not know it", domain=domain)
        return policy.at_look_up(trouble=trouble, names_us=names_us)
