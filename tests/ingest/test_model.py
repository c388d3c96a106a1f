"""A model of the dialogue that knows which replies are legal in which state, against the pure session.

The model keeps the few facts that RFC 5321 section 4.1.4 speaks of (greeted or not, in a transaction or not,
recipients or none), what RFC 3207 forgets, and the count of errors; hypothesis looks for a way to make both
disagree.
"""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from libs.mail import replies
from libs.mail.records import Basis, ContentRef
from libs.mail.replies import Receipt
from libs.mail.reply import Reply
from services.ingest.effects import (
    AskRcpt,
    Commit,
    Committed,
    Connected,
    Content,
    ContentEnd,
    Effect,
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
    TlsStarted,
)
from services.ingest.facts import Accept
from services.ingest.limits import COMMAND_OCTETS, Limit, Limits, Load
from services.ingest.session import Session, step

HOST = "mx1.backup.example"
MAX_ERRORS, MAX_RECIPIENTS, MAX_SIZE = 4, 3, 1000
CONTENT = Content("id", ContentRef(0, (0,), 1), b"", 0.0, 0.0, 0.0)
NAMES = ("ann", "bob", "kim", "joe", "sue")


def commands(waiting: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The rule holds where the session waits for `waiting`."""
    return precondition(lambda self: self.waiting == waiting)


class Dialogue(RuleBasedStateMachine):
    """`waiting`: the input that the last effect yields: line, answer, content, commit, tls, flush; or nothing
    after the end."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Session()
        self.effect: Effect | None = None
        self.waiting = ""
        self.greeted = self.extended = self.tls = self.mail = self.later = self.stray = False
        self.recipients: list[str] = []
        self.asked = ""
        self.errors = 0
        self.offers_tls = True
        self.relay = ""
        self.full = False

    # --- what is expected ---

    def give(self, got: Input) -> None:
        assert self.waiting, "nothing follows a close"
        limits = Limits(
            HOST, ("PIPELINING",), MAX_SIZE, MAX_ERRORS, MAX_RECIPIENTS, self.offers_tls, Load(full=self.full)
        )
        self.state, self.effect = step(self.state, got, limits)

    def says(self, reply: Reply | None) -> None:
        """The effect is this reply; 5yz counts, and the last one that is borne is a 421 and the end."""
        if reply is not None and reply.code >= 500:
            self.errors += 1
            if self.errors == MAX_ERRORS:
                self.ends(replies.too_many_errors(HOST))
                return
        assert isinstance(self.effect, Say), self.effect
        assert self.effect.reply == reply
        self.waiting = "line"

    def ends(self, reply: Reply) -> None:
        assert isinstance(self.effect, SayAndClose), self.effect
        assert self.effect.reply == reply
        self.waiting = ""

    def line(self, octets: bytes, reply: Reply) -> None:
        self.give(Line(octets, more=False))
        self.says(reply)

    def forget(self) -> None:
        self.mail, self.recipients, self.later, self.stray = False, [], False, False

    @property
    def no_mail(self) -> Reply:
        """What RCPT and DATA hear without a transaction: what we broke is not the client's error."""
        return replies.OUR_FAULT if self.later else replies.MAIL_FIRST

    @property
    def unasked(self) -> Reply:
        """What a content hears that no 354 asked for."""
        return replies.EARLY_NOW if self.later else replies.EARLY

    # --- the beginning ---

    @initialize(
        room=st.booleans(),
        early=st.sampled_from([False] * 4 + [True]),
        tls=st.booleans(),
        relay=st.sampled_from(["", "192.0.2.65"]),
    )
    def connects(self, room: bool, early: bool, tls: bool, relay: str) -> None:
        """Data before the banner ends it before anything else."""
        self.offers_tls, self.waiting, self.relay = tls, "line", relay
        self.give(Connected(None if room or not early else Limit.CONNECTIONS, early, relay))
        if early:
            self.ends(replies.EARLY)
        else:
            self.says(replies.banner(HOST))

    # --- commands ---

    @commands("line")
    @rule(extended=st.booleans(), more=st.sampled_from([False] * 6 + [True]))
    def greets(self, extended: bool, more: bool) -> None:
        """RFC 5321 4.1.4: EHLO at any time forgets the transaction. RFC 2920: it ends a group."""
        self.give(Line(b"EHLO x" if extended else b"helo x", more))
        if more:
            self.ends(replies.EARLY)
            return
        self.forget()
        self.greeted, self.extended = True, extended
        assert isinstance(self.effect, Say)
        assert self.effect.reply is not None
        offered = "STARTTLS" in self.effect.reply.text.split("\n")
        assert offered == (extended and self.offers_tls and not self.tls)
        assert ("XCLIENT" in self.effect.reply.text) == (extended and self.relay != "")
        self.waiting = "line"
        assert (self.effect.reply.code, self.effect.reply.enhanced) == (250, "")

    @commands("line")
    @rule(argument=st.sampled_from([b"", b" ", b" a b", b" \xff", b" " + b"x" * 256]))
    def greets_badly(self, argument: bytes) -> None:
        """Nothing is forgotten and nothing begun."""
        self.line(b"EHLO" + argument, replies.BAD_HELO)

    @commands("line")
    @rule(size=st.sampled_from([0, 0, 0, MAX_SIZE, MAX_SIZE + 1]))
    def mails(self, size: int) -> None:
        """RFC 5321 4.1.4: after EHLO, and not within a transaction."""
        if not self.greeted:
            reply = replies.HELO_FIRST
        elif self.mail:
            reply = replies.NESTED_MAIL
        elif size > MAX_SIZE:
            reply = replies.TOO_LARGE
        else:
            reply = replies.SPOOL_FULL if self.full else replies.SENDER_OK
        self.line(b"MAIL FROM:<a@b.example>" + (b" SIZE=%d" % size if size else b""), reply)
        if reply == replies.SENDER_OK:
            self.forget()
            self.mail = True
        elif self.greeted and not self.mail:
            self.later = reply == replies.SPOOL_FULL

    @commands("line")
    @rule(
        bad=st.sampled_from(
            [
                (b"MAIL", replies.SYNTAX),
                (b"MAIL FROM:a@b", replies.BAD_SENDER),
                (b"MAIL FROM:<a@b> X=1", replies.UNKNOWN_PARAMETER),
                (b"MAIL FROM:<a@b> SIZE=x", replies.SYNTAX),
                (b"MAIL FROM:<\xc3\xa4@b.example>", replies.SENDER_NEEDS_UTF8),
            ]
        )
    )
    def mails_badly(self, bad: tuple[bytes, Reply]) -> None:
        """The sequence is looked at before the syntax."""
        reply = bad[1] if self.greeted and not self.mail else replies.NESTED_MAIL
        self.line(bad[0], reply if self.greeted else replies.HELO_FIRST)

    @commands("line")
    @rule(name=st.sampled_from(NAMES))
    def names(self, name: str) -> None:
        """RFC 5321 4.5.3.1.10: one too many is 452 without a question."""
        octets = b"RCPT TO:<%b@office.example>" % name.encode()
        if not self.mail:
            self.line(octets, self.no_mail)
        elif len(self.recipients) == MAX_RECIPIENTS:
            self.line(octets, replies.TOO_MANY_RECIPIENTS)
            self.later = True
        else:
            self.give(Line(octets, more=False))
            assert isinstance(self.effect, AskRcpt)
            assert str(self.effect.to) == f"{name}@office.example"
            self.asked, self.waiting = name, "answer"

    @commands("line")
    @rule(bad=st.sampled_from([(b"RCPT", replies.SYNTAX), (b"RCPT TO:<>", replies.BAD_RECIPIENT)]))
    def names_badly(self, bad: tuple[bytes, Reply]) -> None:
        self.line(bad[0], bad[1] if self.mail else self.no_mail)

    @commands("line")
    @rule()
    def data(self) -> None:
        """RFC 5321 4.1.1.4: no recipient, no 354."""
        if not self.mail or not self.recipients:
            nobody = replies.NO_RECIPIENTS_NOW if self.later else replies.NO_RECIPIENTS
            self.line(b"DATA", nobody if self.mail else self.no_mail)
            self.stray = True
            return
        self.give(Line(b"DATA", more=False))
        assert isinstance(self.effect, ReadContent)
        assert self.effect.reply == replies.SEND_CONTENT
        assert [each.mailbox for each in self.effect.envelope.recipients] == self.recipients
        self.waiting = "content"

    @commands("line")
    @rule(verb=st.sampled_from([b"DATA", b"RSET", b"QUIT", b"STARTTLS"]))
    def an_argument_too_many(self, verb: bytes) -> None:
        self.line(verb + b" x", replies.SYNTAX)
        self.stray = self.stray or verb == b"DATA"

    @commands("line")
    @rule()
    def data_and_content_at_once(self) -> None:
        """RFC 2920 3.1: no line of a content is a command."""
        if self.mail and self.recipients:
            return
        self.give(Line(b"DATA", more=True))
        self.ends(self.unasked)

    @commands("line")
    @rule()
    def resets(self) -> None:
        """The greeting stays."""
        self.line(b"RSET", replies.OK)
        self.forget()

    @commands("line")
    @rule(
        said=st.sampled_from(
            [
                (b"NOOP", replies.OK),
                (b"noop x", replies.OK),
                (b"HELP", replies.HELP),
                (b"VRFY ann", replies.CANNOT_VRFY),
                (b"EXPN all", replies.CANNOT_VRFY),
                (b"VRFY", replies.SYNTAX),
            ]
        )
    )
    def says_what_changes_nothing(self, said: tuple[bytes, Reply]) -> None:
        self.line(*said)

    @commands("line")
    @rule(octets=st.sampled_from([b"", b"DATA\t", b"BDAT 1 LAST", b"Subject: hi", b"."]))
    def says_no_command(self, octets: bytes) -> None:
        """After a DATA that was refused it may be content, and the session is over."""
        if not self.stray:
            self.line(octets, replies.UNKNOWN_COMMAND)
            return
        self.give(Line(octets, more=False))
        self.ends(self.unasked)

    @commands("line")
    @rule(length=st.integers(COMMAND_OCTETS - 4, COMMAND_OCTETS + 1))
    def a_long_line(self, length: int) -> None:
        """`length`: without CR LF."""
        self.give(Line(b"NOOP".ljust(length), more=False))
        if length + 2 > COMMAND_OCTETS:
            self.ends(replies.BAD_LINE)
        else:
            self.says(replies.OK)

    @commands("line")
    @rule()
    def starts_tls(self) -> None:
        if self.tls or not self.offers_tls:
            self.line(b"STARTTLS", replies.TLS_ALREADY if self.tls else replies.TLS_NOT_AVAILABLE)
            return
        self.give(Line(b"STARTTLS", more=True))
        assert isinstance(self.effect, StartTls)
        self.waiting = "tls"

    @commands("line")
    @rule()
    def asks_for_mail(self) -> None:
        """RFC 1985: after EHLO, outside of a transaction."""
        if not self.extended or self.mail:
            self.line(b"ETRN office.example", replies.IN_TRANSACTION if self.extended else replies.HELO_FIRST)
            return
        self.give(Line(b"ETRN office.example", more=False))
        assert self.effect == RequestFlush("office.example")
        self.waiting = "flush"

    @commands("line")
    @rule(verb=st.sampled_from([b"XFORWARD", b"XCLIENT"]), good=st.booleans())
    def names_a_client(self, verb: bytes, good: bool) -> None:
        """XFORWARD_README, XCLIENT_README: of a trusted relay, after EHLO, outside of a transaction. XCLIENT
        lets all begin again."""
        line = verb + (b" ADDR=203.0.113.7" if good else b" ADDR")
        if not self.relay or not self.extended or self.mail or not good:
            turn = replies.HELO_FIRST if not self.extended else replies.IN_TRANSACTION
            wrong = replies.SYNTAX if self.extended and not self.mail else turn
            if self.relay or not self.stray:
                self.line(line, wrong if self.relay else replies.UNKNOWN_COMMAND)
            return
        if verb == b"XFORWARD":
            self.line(line, replies.OK)
            return
        self.give(Line(line, more=False))
        assert self.effect == Represent("203.0.113.7")
        self.forget()
        self.greeted = self.extended = False
        self.give(Connected(None, early=False, relay=self.relay))
        self.says(replies.banner(HOST))

    @commands("line")
    @rule()
    def quits(self) -> None:
        self.give(Line(b"QUIT", more=False))
        self.ends(replies.bye(HOST))

    # --- what effects yield ---

    @commands("answer")
    @rule(
        reply=st.sampled_from([None, None, None, replies.UNKNOWN_RECIPIENT, replies.DOMAIN_FULL]),
    )
    def answered(self, reply: Reply | None) -> None:
        """A refused recipient spoils nothing; one that is named twice counts once."""
        mailbox = f"{self.asked}@office.example"
        if reply is None:
            self.give(
                RcptAnswer(Accept("office.example", "office.example", mailbox, Basis.DELIVERABLE, "cache"))
            )
            self.says(replies.RECIPIENT_OK)
            if mailbox not in self.recipients:
                self.recipients.append(mailbox)
        else:
            self.give(RcptAnswer(reply))
            self.says(reply)
            self.later = self.later or reply.code < 500

    @commands("answer")
    @rule()
    def answered_with_the_end(self) -> None:
        """RFC 5321 3.8: 421 closes."""
        reply = Reply(421, "4.7.0", "enough")
        self.give(RcptAnswer(reply))
        self.ends(reply)

    @commands("content")
    @rule()
    def content_comes(self) -> None:
        self.give(ContentEnd(CONTENT))
        assert isinstance(self.effect, Commit)
        assert [each.mailbox for each in self.effect.envelope.recipients] == self.recipients
        self.waiting = "commit"

    @commands("content")
    @rule(reply=st.sampled_from([replies.TOO_LARGE, replies.NOT_STORED, replies.LOOP]), close=st.booleans())
    def content_is_refused(self, reply: Reply, close: bool) -> None:
        """The transaction is over, whatever the reply."""
        self.give(ContentEnd(None, reply, close=close))
        self.forget()
        if close:
            self.ends(reply)
        else:
            self.says(reply)

    @commands("commit")
    @rule()
    def committed(self) -> None:
        """The one 250 that takes the mail; errors are forgiven."""
        self.give(Committed(Receipt("id")))
        self.forget()
        self.errors = 0
        self.says(replies.queued(Receipt("id")))

    @commands("commit")
    @rule(reply=st.sampled_from([replies.NOT_STORED, replies.REJECTED, replies.DEFERRED]))
    def refused(self, reply: Reply) -> None:
        self.give(Refused(reply))
        self.forget()
        self.says(reply)

    @commands("tls")
    @rule()
    def tls_started(self) -> None:
        """RFC 3207 4.2: the greeting and the transaction are forgotten, the errors are not."""
        self.give(TlsStarted("TLSv1.3 X"))
        self.says(None)
        self.forget()
        self.greeted = self.extended = False
        self.tls = True

    @commands("flush")
    @rule(
        reply=st.sampled_from(
            [Reply(250, "2.0.0", "Ok"), Reply(458, "4.3.0", "not now"), replies.RELAYING_DENIED]
        )
    )
    def flushed(self, reply: Reply) -> None:
        self.give(FlushAnswer(reply))
        self.says(reply)

    # --- what comes from elsewhere ---

    @precondition(lambda self: self.waiting)
    @rule()
    def a_fault_of_ours(self) -> None:
        """Never permanent, nor is what follows of the transaction; that is over, the session is not."""
        self.give(Interrupted.OURS)
        self.mail, self.recipients, self.later = False, [], True
        self.says(replies.OUR_FAULT)

    @commands("line")
    @rule(
        why=st.sampled_from(
            [
                (Interrupted.TIMEOUT, replies.timed_out(HOST)),
                (Interrupted.OVERTIME, replies.overtime(HOST)),
                (Interrupted.DRAINING, replies.draining(HOST)),
                (Interrupted.BAD_LINE, replies.BAD_LINE),
            ]
        )
    )
    def interrupted(self, why: tuple[Interrupted, Reply]) -> None:
        self.give(why[0])
        self.ends(why[1])

    @rule(full=st.booleans())
    def the_disk(self, full: bool) -> None:
        self.full = full

    @invariant()
    def agrees(self) -> None:
        """Both know the same of the transaction."""
        assert (self.state.mail is not None) == self.mail
        assert self.state.errors == self.errors or not self.waiting
        assert bool(self.state.helo) == self.greeted or not self.waiting
        assert bool(self.state.tls) == self.tls
        assert (self.state.later, self.state.stray) == (self.later, self.stray) or not self.waiting
        if self.state.mail is not None:
            assert [each.mailbox for each in self.state.mail.recipients] == self.recipients


Dialogue.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestDialogue = Dialogue.TestCase
