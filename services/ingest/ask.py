"""Ask and wait: a question on `callouts`, the answer in the replica of `recipients`, one deadline for both.

However many sessions want to know of a recipient, one question is in flight. Where verify is silent, about a
domain or a partition, nobody waits any more but one session every 15 s (patience.py).
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

import structlog
from msgspec.structs import replace

from libs.log.contract import LogError
from libs.mail import replies
from libs.mail.address import Mailbox
from libs.mail.codec import encode
from libs.mail.knowledge import Callout
from libs.mail.records import Admission
from libs.mail.reply import Reply
from libs.runtime.config import SmtpPart
from libs.runtime.deps import Deps
from libs.runtime.dns import Kind
from services.ingest import policy
from services.ingest.budgets import Allowance, Budgets
from services.ingest.connections import Peer
from services.ingest.facts import Accept, Ask, Envelope, Facts, FindOut, Remember, Whose
from services.ingest.known import Known
from services.ingest.limits import Load
from services.ingest.origin import Origins
from services.ingest.patience import FULL_PATIENCE, Breakdowns, Patience, Silences
from services.ingest.sights import Sights

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

    def __init__(self, deps: Deps, known: Known, sights: Sights, breakdowns: Breakdowns) -> None:
        self._deps, self._known, self._sights, self._breakdowns = deps, known, sights, breakdowns
        self._deadline_s = deps.config.timing.rcpt_deadline_s
        self._budgets, self._origins = Budgets(allowance(deps.config.smtp)), Origins(deps, known)
        self._questions: dict[str, Question] = {}
        self._patience: dict[str, Patience] = {}
        self._silences = Silences(known.told)
        self.tasks: set[asyncio.Task[None]] = set()
        self.full = False  # the log's disk; the service looks from time to time

    def at_once(
        self, to: Mailbox, envelope: Envelope, client: Peer
    ) -> Reply | Accept | Ask | FindOut | Whose:
        """What can be said without waiting."""
        facts = self._facts(to, envelope, client)
        answer = policy.at_rcpt(to, facts, envelope, self._deps.clock.wall())
        return self._noted(policy.at_budget(answer, facts, envelope), to, envelope, client)

    async def answer(
        self, to: Mailbox, envelope: Envelope, pending: Ask | FindOut | Whose, client: Peer
    ) -> Reply | Accept:
        """What at_once() left open."""
        if isinstance(pending, Whose):
            return await self._whose(to, envelope, pending, client)
        if isinstance(pending, FindOut):
            return await self._find_out(pending.domain)
        question = self._question(to, anew=pending.anew)
        answered: bool | None = False
        if pending.wait and question is not None:
            await asyncio.wait({question.answered})
            answered = question.answered.result()
        if answered is None:
            return replies.STORAGE_TROUBLE
        decide = policy.at_answer if answered else policy.at_deadline
        facts = self._facts(to, envelope, client)
        answer = policy.at_budget(decide(to, facts, envelope, self._deps.clock.wall()), facts, envelope)
        if isinstance(answer, Whose):
            return await self._whose(to, envelope, answer, client)
        return self._noted(answer, to, envelope, client)

    async def _whose(self, to: Mailbox, envelope: Envelope, spent: Whose, client: Peer) -> Reply | Accept:
        """Once more for the primary itself, which has no budget; `spent.answer` for anybody else, and where
        it is the domain's own budget that is spent."""
        if self._origins.is_primary(client, to.domain) or not await self._origins.find(client, to.domain):
            return spent.answer
        answer = self.at_once(to, envelope, client)
        if isinstance(answer, Reply | Accept):
            return answer
        return await self.answer(to, envelope, answer, client)

    def ahead(self, mailboxes: Iterable[Mailbox], envelope: Envelope, client: Peer) -> None:
        """Ask about recipients that the client has sent ahead, so that all answers are under way at once: as
        many as its budget has room for."""
        now, most = self._deps.clock.wall(), self._budgets.questions(client, self._deps.clock.mono())
        for to in mailboxes:
            if most < 1:
                return
            facts = self._facts(to, envelope, client)
            answer = policy.at_rcpt(to, facts, envelope, now)
            allowed = policy.at_budget(answer, facts, envelope)
            if isinstance(allowed, Ask):
                self._question(to, anew=allowed.anew)
                most -= not allowed.anew

    def _facts(self, to: Mailbox, envelope: Envelope, client: Peer) -> Facts:
        mono = self._deps.clock.mono()
        domain = to.domain or self._known.names.host
        failed = self._breakdowns.broken(self._known.partition(domain), mono)
        load = self._budgets.load(Load(self.full, failed), to, self._own(to, client), mono)
        facts = self._known.facts(to, load)
        if facts.settings is None or facts.settings.admission is Admission.ALWAYS:
            return facts
        sighted_s = self._sights.age_s(client.network, envelope.reverse_path, to.key)
        return replace(facts, sighted_s=sighted_s)

    def _own(self, to: Mailbox, client: Peer) -> Peer:
        """The primary itself has no budget."""
        return client._replace(exempt=True) if self._origins.is_primary(client, to.domain) else client

    def _noted(self, answer: T | Remember, to: Mailbox, envelope: Envelope, client: Peer) -> T | Reply:
        if isinstance(answer, Remember):
            self._deps.metrics.sent_back.inc()
            partition = self._known.partition(to.domain)
            sight = self._sights.remember(client.network, envelope.reverse_path, to.key, partition)
            self._start(sight)
            return answer.reply
        self._budgets.count(answer, to, self._own(to, client), self._deps.clock.mono())
        return answer

    def _question(self, to: Mailbox, *, anew: bool) -> Question | None:
        """The one in flight, or a new one; None when nobody is to be asked now."""
        if (question := self._questions.get(to.key)) is not None:
            return question
        now = self._deps.clock.mono()
        patience = self._patience.get(to.domain, FULL_PATIENCE)
        if not (patience.waits(now) and self._silences.waits(self._known.partition(to.domain), now)):
            return None
        if patience is not FULL_PATIENCE:
            self._patience[to.domain] = patience.began(now)
        return self._ask(to, anew=anew)

    def _ask(self, to: Mailbox, *, anew: bool) -> Question:
        """Watch first, then publish: no answer can come unseen."""
        loop = asyncio.get_running_loop()
        key = to.key
        question = self._questions[key] = Question(loop.create_future())
        watches = [self._known.recipients.watch(name.encode()) for name in (key, f"try:{key}")]
        for watch in watches:
            watch.add_done_callback(lambda done: None if done.cancelled() else question.end(True))
        timer = loop.call_later(self._deadline_s, question.end, False)
        partition = self._known.partition(to.domain)
        mark = self._silences.began(partition, self._deps.clock.mono())

        def ended(answered: "asyncio.Future[bool | None]") -> None:
            timer.cancel()
            for watch in watches:
                watch.cancel()
            del self._questions[key]
            if answered.result():
                self._patience.pop(to.domain, None)
            elif answered.result() is False:
                self._deps.metrics.unanswered.inc()
                now, before = self._deps.clock.mono(), self._patience.get(to.domain, FULL_PATIENCE)
                self._patience[to.domain] = before.timed_out(now)
                self._silences.timed_out(partition, mark, now)

        question.answered.add_done_callback(ended)
        self._start(self._publish(to, question, anew=anew))
        return question

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _publish(self, to: Mailbox, question: Question, *, anew: bool) -> None:
        callout = Callout(str(to), self._deps.config.host.name, anew)
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


def allowance(smtp: SmtpPart) -> Allowance:
    """What is allowed within an hour."""
    return Allowance(
        unknown=smtp.max_unknown_per_client,
        unverified=smtp.max_unverified_per_client,
        unverified_of_domain=smtp.max_unverified_per_domain,
    )
