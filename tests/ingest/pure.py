"""A case file against the pure files alone: no socket, no loop, no log."""

import ipaddress
import math

from msgspec import Struct, structs

from libs.mail import replies
from libs.mail.address import Mailbox, mailbox
from libs.mail.knowledge import PrimaryFacts, RecipientStatus, RecipientTry
from libs.mail.records import ContentRef, Mail
from libs.mail.replies import Receipt
from libs.mail.reply import Reply
from libs.mail.settings import complete
from libs.runtime.config import DefaultsPart, SmtpPart
from services.ingest import policy, proxy, upstream
from services.ingest.access import Listed, Rules
from services.ingest.ask import allowance
from services.ingest.budgets import Budgets
from services.ingest.connections import Connections, peer_at
from services.ingest.effects import (
    AskRcpt,
    Commit,
    Committed,
    Connected,
    Content,
    ContentEnd,
    FlushAnswer,
    Input,
    Interrupted,
    Line,
    RcptAnswer,
    ReadContent,
    Refused,
    Represent,
    RequestFlush,
    Say,
    SayAndClose,
    StartTls,
)
from services.ingest.facts import (
    Accept,
    Ask,
    Envelope,
    Facts,
    FindOut,
    FlushFacts,
    OurNames,
    Remember,
    Whose,
)
from services.ingest.fallback import heard_at
from services.ingest.flushes import Flushes
from services.ingest.limits import COMMAND_OCTETS, HOPS, Limit, Limits, Load
from services.ingest.service import rates
from services.ingest.session import Session, step
from services.ingest.sights import hashed
from services.ingest.unstuff import Unstuff
from tests.helpers.client import matches
from tests.ingest.cases import Case, judged

HOST = "mx1.backup.example"
NAMES = OurNames(
    HOST,
    {
        HOST: HOST,
        "mx2.backup.example": "mx2.backup.example",
        "[192.0.2.1]": HOST,
        "[IPv6:2001:db8::1]": HOST,
    },
    mailbox("ops@operators.example"),
)


SILENT = (AskRcpt, Commit, RequestFlush, Represent)


class Hungry(Exception):  # noqa: N818
    """More octets are wanted than the client has sent so far."""


class Play:
    """The shell's part, in memory."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.wire = bytearray()
        self.content: tuple[Envelope, bytes] | None = None
        self.parse: Unstuff | None = None
        self.said = b""
        self.queued: list[tuple[Mail, bytes]] = []
        self.requested: list[str] = []
        self.judged: list[str] = []
        self.client, self.helo = case.client, ""
        self.flushes = Flushes()
        self.known = {key: record for key, (_, record) in case.recipients.items()}
        self.defaults = DefaultsPart(**case.defaults).settings()
        size = max([self.defaults.max_size, *(d.overrides.max_size or 0 for d in case.domains.values())])
        self.asked: list[str] = []
        self.came: dict[str, Struct] = {}
        self.sighted = {
            hashed(b"salt", client, sender, key): case.later_s for client, sender, key in case.sights
        }
        self.limits = Limits(
            host=HOST,
            capabilities=(
                "PIPELINING",
                "8BITMIME",
                "ENHANCEDSTATUSCODES",
                f"SIZE {size}",
                "ETRN",
                "SMTPUTF8",
                "DSN",
            ),
            max_size=size,
            max_errors=int(case.smtp.get("max_errors", 10)),
            max_recipients=int(case.smtp.get("max_recipients", 100)),
            tls=False,
            load=Load(full=case.full),
            access=Rules(Listed(each, math.inf) for each in case.access),
        )
        config = SmtpPart(**case.smtp)
        self.exempt = [ipaddress.ip_network(each) for each in config.exempt_networks]
        self.peer = peer_at(case.client, self.exempt, self.limits.access)
        relays = [ipaddress.ip_network(each) for each in config.trusted_relays]
        self.relay = case.client if proxy.trusted(case.client, relays) else ""
        self.connections = Connections(rates(config))
        self.budgets = Budgets(allowance(config))

    def connect(self) -> Limit | None:
        """The connections of before, then this one."""
        for _ in range(self.case.before):
            assert self.connections.opened(self.peer, 0.0) is None
        for _ in range(self.case.before if self.case.gone else 0):
            self.connections.closed(self.peer, None)
        return self.connections.opened(self.peer, 0.0)

    def facts(self, to: Mailbox, envelope: Envelope) -> Facts:
        load = self.budgets.load(Load(), to, self.peer, 0.0)
        return structs.replace(self._facts(to, envelope), load=load)

    def _facts(self, to: Mailbox, envelope: Envelope) -> Facts:
        case = self.case
        domain = case.domains.get(to.domain)
        installed = case.installation is not None and not case.installation[0]
        if domain is None or not installed:
            counted = case.installation is not None and (case.installation[1] or 0) <= len(case.domains)
            return Facts(NAMES, installed and counted, None)
        status, tried = self.known.get(to.key), self.known.get(f"try:{to.key}")
        of = f"@{to.domain}"
        learnt = self.known.get(of)
        return Facts(
            NAMES,
            whole=True,
            settings=complete(self.defaults, domain),
            fresh=True,
            status=status if isinstance(status, RecipientStatus) else None,
            tried=tried if isinstance(tried, RecipientTry) else None,
            primary=case.primaries.get(to.domain),
            learnt=learnt if isinstance(learnt, PrimaryFacts) else None,
            heard=max((heard_at(each) for name, each in self.came.items() if name.endswith(of)), default=0.0),
            sighted_s=self.sighted.get(self.who(to, envelope)),
        )

    def perform(self, effect: Say | AskRcpt | ReadContent | Commit | RequestFlush | Represent) -> Input:
        match effect:
            case Say():
                return self.line()
            case AskRcpt():
                return RcptAnswer(self.ask(effect.to, effect.envelope))
            case ReadContent():
                return self.read(effect.envelope)
            case Commit():
                return self.commit(effect)
            case RequestFlush():
                return FlushAnswer(self.flush(effect.domain))
            case Represent():
                self.client = effect.client
                self.peer = peer_at(effect.client or self.case.client, self.exempt, self.limits.access)
                blocked = Limit.BLOCKED_CLIENTS if self.peer.blocked else None
                return Connected(blocked, early=False, relay=self.relay)

    def flush(self, domain: str) -> Reply:
        f = self.facts(Mailbox("postmaster", domain), Envelope(""))
        hosts = f.primary.mx if f.primary else ()
        own = any(line.split()[0] in hosts and line.endswith(" 127.0.0.1") for line in self.case.zone)
        reply = policy.at_etrn(FlushFacts(f.whole, f.settings, f.primary, own))
        if reply.code < 300 and self.flushes.due(domain, 0.0, own=own):
            self.flushes.began(domain, 0.0)
            self.requested.append(domain)
        return reply

    def line(self) -> Input:
        end = self.wire.find(b"\n")
        if end < 0:
            if len(self.wire) > COMMAND_OCTETS:
                return Interrupted.BAD_LINE
            raise Hungry
        if self.wire[end - 1 : end] != b"\r":
            return Interrupted.BAD_LINE
        line = bytes(self.wire[: end - 1])
        del self.wire[: end + 1]
        return Line(line, bool(self.wire))

    def ask(self, to: Mailbox, envelope: Envelope) -> Reply | Accept:
        answer = self.answer(to, envelope)
        if not isinstance(answer, Accept) or envelope.recipients:
            return answer
        records = [line.split()[1:] for line in self.case.zone if line.split()[0] == envelope.sender]
        null_mx = records == [["MX", "0", "."]]
        return policy.at_sender(answer, null_mx=null_mx)

    def answer(self, to: Mailbox, envelope: Envelope) -> Reply | Accept:
        answer = self.judge(to, envelope)
        self.budgets.count(answer, to, self.peer, 0.0)
        return answer

    def judge(self, to: Mailbox, envelope: Envelope) -> Reply | Accept:
        now, facts = self.case.now, self.facts(to, envelope)
        answer = policy.at_budget(policy.at_rcpt(to, facts, envelope, now), facts, envelope)
        if isinstance(answer, Whose):
            return answer.answer
        if isinstance(answer, FindOut):
            lines = [line.split() for line in self.case.zone if line.split()[0] == answer.domain]
            trouble = any("!" in word for words in lines for word in words)
            return policy.at_look_up(
                trouble=trouble, names_us=any(words[-1] in NAMES.hosts for words in lines)
            )
        if isinstance(answer, Ask):
            self.asked.append(f"{to} anew" if answer.anew else str(to))
            came = self.case.answers.get(to.key, []) if answer.wait else []
            self.known |= dict(came)
            self.came |= dict(came)
            decide = policy.at_answer if came else policy.at_deadline
            facts = self.facts(to, envelope)
            answer = policy.at_budget(decide(to, facts, envelope, now), facts, envelope)
            if isinstance(answer, Whose):
                return answer.answer
        if isinstance(answer, Remember):
            self.sighted[self.who(to, envelope)] = 0.0
            return answer.reply
        return answer

    def who(self, to: Mailbox, envelope: Envelope) -> bytes:
        return hashed(b"salt", self.peer.network, envelope.reverse_path, to.key)

    def read(self, envelope: Envelope) -> Input:
        if self.parse is None:
            self.parse = Unstuff(reject_bare_lf=self.case.smtp.get("bare_newline") == "reject")
            self.content = (envelope, b"")
        parse = self.parse
        assert self.content is not None
        if self.wire:
            self.content = (envelope, self.content[1] + parse.feed(self.wire))
        if parse.fault:
            return ContentEnd(None, replies.BARE_LINE_END, close=True)
        if not parse.ended:
            raise Hungry
        self.parse = None
        self.judged.append(judged(upstream.trace(envelope, self.client, self.helo)))
        domain = self.case.domains.get(envelope.domain)
        most = complete(self.defaults, domain).max_size if domain else self.limits.max_size
        if parse.size > most:
            return ContentEnd(None, replies.TOO_LARGE)
        if parse.hops > HOPS:
            return ContentEnd(None, replies.LOOP)
        return ContentEnd(Content("id", ContentRef(0, (0,), parse.size), bytes(parse.head), 0.0, 0.0, 0.0))

    def commit(self, effect: Commit) -> Input:
        if (reply := policy.at_dot(self.case.verdict, hides=False)) is not None:
            return Refused(reply)
        e = effect.envelope
        mail = Mail(
            id="id",
            domain=e.domain,
            next_hop=e.next_hop,
            kind=e.kind,
            reverse_path=e.reverse_path,
            recipients=e.recipients,
            prepend=b"",
            arrived=0.0,
            may_notify=False,
            ret=e.ret,
            envid=e.envid,
            smtputf8=e.smtputf8,
        )
        assert self.content is not None
        self.queued.append((mail, self.content[1]))
        return Committed(Receipt("id"))


def converse(case: Case) -> list[tuple[Mail, bytes]]:
    """Have the dialogue; AssertionError with the line that is not as it should be. What was queued."""
    play = Play(case)
    closed = False
    early = bool(case.turns[0].sent)
    limit = play.connect()
    state, effect = step(Session(), Connected(limit, early, play.relay), play.limits)
    said: list[str] = []
    spoke: object = None  # an effect that says something says it once, however often it must wait
    for turn in case.turns:
        play.wire += turn.sent
        while not closed:
            if effect is not spoke and not isinstance(effect, SILENT) and effect.reply is not None:
                said += effect.reply.wire().decode().split("\r\n")[:-1]
            spoke = effect
            if isinstance(effect, SayAndClose):
                closed = True
                break
            assert not isinstance(effect, StartTls)
            play.helo = state.helo
            try:
                got = play.perform(effect)
            except Hungry:
                break
            state, effect = step(state, got, play.limits)
        for expected in turn.expected:
            if expected is None:
                assert closed, f"line {turn.line}: not closed"
                assert not said, f"line {turn.line}: {said}"
                continue
            assert said, f"line {turn.line}: wanted {expected!r}, got nothing"
            line = said.pop(0)
            assert matches(expected, line), f"line {turn.line}: wanted {expected!r}, got {line!r}"
    assert not said, f"said, not expected: {said}"
    assert play.requested == case.requested
    if case.judged:
        assert sorted(play.judged) == sorted(case.judged)
    if case.asked:
        assert sorted(play.asked) == sorted(case.asked)
    return play.queued
