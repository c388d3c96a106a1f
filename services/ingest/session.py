"""The dialogue: state + input -> state + one effect (RFC 5321 sections 3 and 4, RFC 2920, RFC 3207).

Every effect that does not close yields exactly one input; the shell (server.py) performs effects and decides
nothing. Lines that come while an effect is performed wait in the wire.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from libs.mail import replies
from libs.mail.address import Bad, BadAddress, Mailbox, domain_name, path, split
from libs.mail.esmtp import BadParameter, RcptParameters, mail_parameters, rcpt_parameters
from libs.mail.records import Recipient
from libs.mail.reply import Reply
from services.ingest import policy, upstream
from services.ingest.effects import (
    AskRcpt,
    Commit,
    Committed,
    Connected,
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
from services.ingest.facts import Accept, Envelope, Origin
from services.ingest.limits import COMMAND_OCTETS, Limit, Limits


class Session(Struct, frozen=True):
    """`helo` "" before the first EHLO or HELO; `tls`: protocol and cipher, "" in clear; `errors`: 5yz replies
    since the last accepted mail; `asked`: the parameters of the RCPT that is being answered,
    `recipient`: its mailbox; `blocked`: nothing but QUIT is taken; `later`: something temporary ended the
    transaction or refused a recipient of it, so what a pipelining client has sent of it all the same is no
    error of its own; `stray`: DATA was refused, so what is no command may be its content. `relay`: the
    client's address, if it is a trusted relay; `named`: whom it has the next mail from (XFORWARD);
    `represented`: for whom it speaks (XCLIENT), None for itself."""

    helo: str = ""
    extended: bool = False
    tls: str = ""
    errors: int = 0
    mail: Envelope | None = None
    asked: RcptParameters = RcptParameters()
    blocked: bool = False
    recipient: str = ""
    later: bool = False
    stray: bool = False
    relay: str = ""
    named: Origin | None = None
    represented: str | None = None


Step = tuple[Session, Effect]


def step(s: Session, got: Input, limits: Limits) -> Step:
    """What follows from `got`."""
    match got:
        case Line():
            return _line(s, got, limits)
        case RcptAnswer():
            return _rcpt_answer(s, got.answer, limits)
        case ContentEnd():
            return _content_end(s, got, limits)
        case Committed():
            return replace(_ended(s), errors=0), Say(replies.queued(got.receipt), "DATA")
        case Refused():
            return _say(_ended(s), got.reply, limits, "DATA")
        case TlsStarted():
            # RFC 3207 section 4.2: all else is forgotten.
            return Session(tls=got.tls, errors=s.errors, relay=s.relay), Say(None)
        case FlushAnswer():
            return _say(s, got.reply, limits, "ETRN")
        case Connected():
            return _connected(s, got, limits)
        case Interrupted():
            return _interrupted(s, got, limits)


def ahead(s: Session, lines: Sequence[bytes]) -> tuple[Mailbox, ...]:
    """The mailboxes of RCPTs at the front of `lines`, which the client sent ahead (RFC 2920): they can be
    asked about while the answer to an earlier one is awaited."""
    found: list[Mailbox] = []
    if s.mail is None:
        return ()
    for line in lines:
        if line[:8].upper() != b"RCPT TO:":
            break
        try:
            to = path(split(line[8:].strip(b" "))[0], smtputf8=s.mail.smtputf8)
        except BadAddress:
            continue
        if to is not None:
            found.append(to)
    return tuple(found)


def _ended(s: Session) -> Session:
    """The transaction is over, and nothing of it is to come any more."""
    return replace(s, mail=None, later=False, stray=False, named=None)


def _say(s: Session, reply: Reply, limits: Limits, command: str, recipient: str = "") -> Step:
    """Say `reply`; 5yz counts, and the last one that is allowed ends the session."""
    if reply.code < 500:
        return s, Say(reply, command, recipient)
    s = replace(s, errors=s.errors + 1)
    if s.errors >= limits.max_errors:
        return s, SayAndClose(replies.too_many_errors(limits.host), command, recipient)
    return s, Say(reply, command, recipient)


def _connected(s: Session, got: Connected, limits: Limits) -> Step:
    if got.early:
        return s, SayAndClose(replies.EARLY)
    s = replace(s, relay=got.relay)
    reply = policy.at_connect(got.limit, limits.host)
    if got.limit is None:
        return s, Say(reply)
    if got.limit is Limit.BLOCKED_CLIENTS:
        # RFC 5321 section 3.1: 554 in place of the banner, and then wait for QUIT.
        return replace(s, blocked=True), Say(reply, "CONNECT")
    return s, SayAndClose(reply, "CONNECT", linger=False)  # nobody speaks before our first reply


def _interrupted(s: Session, why: Interrupted, limits: Limits) -> Step:
    match why:
        case Interrupted.TIMEOUT:
            return s, SayAndClose(replies.timed_out(limits.host))
        case Interrupted.OVERTIME:
            return s, SayAndClose(replies.overtime(limits.host))
        case Interrupted.DRAINING:
            return s, SayAndClose(replies.draining(limits.host))
        case Interrupted.BAD_LINE:
            return s, SayAndClose(replies.BAD_LINE)
        case Interrupted.OURS:
            return replace(s, mail=None, later=True), Say(replies.OUR_FAULT)


# --- commands ---


def _line(s: Session, line: Line, limits: Limits) -> Step:
    if len(line.octets) + 2 > COMMAND_OCTETS:
        return s, SayAndClose(replies.BAD_LINE)
    word, _, argument = line.octets.partition(b" ")
    verb = word.upper()
    if s.blocked and verb != b"QUIT":
        return _say(s, replies.ONLY_QUIT, limits, "")
    if verb == b"EHLO" or verb == b"HELO":
        if line.more:
            return s, SayAndClose(replies.EARLY)  # RFC 2920 section 3.1: EHLO ends a group
        return _helo(s, argument.strip(b" "), limits, extended=verb == b"EHLO")
    command = _COMMANDS.get(verb) or (_OF_RELAYS.get(verb) if s.relay else None)
    if command is None:
        return _content_unasked(s) if s.stray else _say(s, replies.UNKNOWN_COMMAND, limits, "")
    after, effect = command(s, argument.strip(b" "), limits)
    if verb == b"DATA" and not isinstance(effect, ReadContent):
        return _content_unasked(after) if line.more else (replace(after, stray=True), effect)
    if line.more and isinstance(effect, SayAndClose):
        return after, replace(effect, linger=True)
    return after, effect


def _content_unasked(s: Session) -> Step:
    """A content without a 354 before it, at once (RFC 2920 section 3.1) or a moment later: not one line of it
    is read as a command."""
    return s, SayAndClose(replies.EARLY_NOW if s.later else replies.EARLY, "DATA")


def _helo(s: Session, argument: bytes, limits: Limits, *, extended: bool) -> Step:
    """RFC 5321 section 4.1.1.1. What is no domain is taken as well, as long as it is one printable word
    (section 4.1.4: a mail is not refused for that)."""
    command = "EHLO" if extended else "HELO"
    if (
        not argument
        or len(argument) > 255
        or not argument.isascii()
        or not all(32 < c < 127 for c in argument)
    ):
        return _say(s, replies.BAD_HELO, limits, command)
    s = Session(argument.decode(), extended, s.tls, s.errors, relay=s.relay, represented=s.represented)
    if not extended:
        return s, Say(replies.helo(limits.host), command)
    starttls = ("STARTTLS",) if limits.tls and not s.tls else ()
    offered = upstream.OFFERED if s.relay else ()
    return s, Say(replies.ehlo(limits.host, limits.capabilities + offered + starttls), command)


def _mail(s: Session, argument: bytes, limits: Limits) -> Step:
    """RFC 5321 section 4.1.1.2."""
    if not s.helo:
        return _say(s, replies.HELO_FIRST, limits, "MAIL")
    if s.mail is not None:
        return _say(s, replies.NESTED_MAIL, limits, "MAIL")
    if argument[:5].upper() != b"FROM:":
        return _say(s, replies.SYNTAX, limits, "MAIL")
    try:
        raw, rest = split(argument[5:].lstrip(b" "))
        given = mail_parameters(rest)
        sender = path(raw, smtputf8=given.smtputf8)
    except BadAddress as error:
        utf8 = error.bad is Bad.UTF8
        return _say(s, replies.SENDER_NEEDS_UTF8 if utf8 else replies.BAD_SENDER, limits, "MAIL")
    except BadParameter as error:
        return _say(s, replies.UNKNOWN_PARAMETER if error.unknown else replies.SYNTAX, limits, "MAIL")
    if sender is not None and not sender.domain:
        return _say(s, replies.BAD_SENDER, limits, "MAIL")
    reverse_path = "" if sender is None else str(sender)
    blocked = sender is not None and limits.access.blocks(sender)
    origin = upstream.origin(s.relay, s.named, s.represented, s.helo)
    envelope = Envelope(
        reverse_path, given.size, given.smtputf8, given.ret, given.envid, blocked=blocked, origin=origin
    )
    reply = policy.at_mail(envelope, limits.max_size, limits.load)
    if reply.code != 250:
        return _say(replace(s, later=reply.code < 500), reply, limits, "MAIL")
    return replace(_ended(s), mail=envelope), Say(reply, "MAIL", sender=envelope.sender)


def _rcpt(s: Session, argument: bytes, limits: Limits) -> Step:
    """RFC 5321 section 4.1.1.3."""
    if s.mail is None:
        return _say(s, replies.OUR_FAULT if s.later else replies.MAIL_FIRST, limits, "RCPT")
    if argument[:3].upper() != b"TO:":
        return _say(s, replies.SYNTAX, limits, "RCPT")
    try:
        raw, rest = split(argument[3:].lstrip(b" "))
        to = path(raw, smtputf8=s.mail.smtputf8)
        given = rcpt_parameters(rest, smtputf8=s.mail.smtputf8)
    except BadAddress as error:
        utf8 = error.bad is Bad.UTF8
        return _say(s, replies.RECIPIENT_NEEDS_UTF8 if utf8 else replies.BAD_RECIPIENT, limits, "RCPT")
    except BadParameter as error:
        return _say(s, replies.UNKNOWN_PARAMETER if error.unknown else replies.SYNTAX, limits, "RCPT")
    if to is None:
        return _say(s, replies.BAD_RECIPIENT, limits, "RCPT")
    if len(s.mail.recipients) >= limits.max_recipients:
        return _say(replace(s, later=True), replies.TOO_MANY_RECIPIENTS, limits, "RCPT", str(to))
    return replace(s, asked=given, recipient=str(to)), AskRcpt(to, s.mail)


def _rcpt_answer(s: Session, answer: Reply | Accept, limits: Limits) -> Step:
    assert s.mail is not None
    if isinstance(answer, Reply):
        if answer.code == 421:  # RFC 5321 section 3.8: the channel is closed with it
            return s, SayAndClose(answer, "RCPT", s.recipient)
        later = s.later or answer.code < 500
        return _say(replace(s, later=later), answer, limits, "RCPT", s.recipient)
    if any(answer.mailbox == earlier.mailbox for earlier in s.mail.recipients):
        return s, Say(replies.RECIPIENT_OK, "RCPT", s.recipient)  # served once, as it was given first
    recipient = Recipient(answer.mailbox, answer.basis, s.asked.notify, s.asked.orcpt)
    mail = replace(
        s.mail,
        recipients=(*s.mail.recipients, recipient),
        domain=answer.domain,
        next_hop=answer.next_hop,
        era=answer.era,
        kind=answer.kind,
    )
    return replace(s, mail=mail), Say(replies.RECIPIENT_OK, "RCPT", s.recipient)


def _data(s: Session, argument: bytes, limits: Limits) -> Step:
    """RFC 5321 section 4.1.1.4."""
    if argument:
        return _say(s, replies.SYNTAX, limits, "DATA")
    if s.mail is None:
        return _say(s, replies.OUR_FAULT if s.later else replies.MAIL_FIRST, limits, "DATA")
    if not s.mail.recipients:
        return _say(s, replies.NO_RECIPIENTS_NOW if s.later else replies.NO_RECIPIENTS, limits, "DATA")
    return s, ReadContent(replies.SEND_CONTENT, s.mail)


def _content_end(s: Session, end: ContentEnd, limits: Limits) -> Step:
    assert s.mail is not None
    if end.content is not None:
        return s, Commit(s.mail, end.content)
    assert end.reply is not None
    if end.close:
        return _ended(s), SayAndClose(end.reply, "DATA")
    return _say(_ended(s), end.reply, limits, "DATA")


def _rset(s: Session, argument: bytes, limits: Limits) -> Step:
    if argument:
        return _say(s, replies.SYNTAX, limits, "RSET")
    return _ended(s), Say(replies.OK, "RSET")


def _noop(s: Session, argument: bytes, limits: Limits) -> Step:
    del argument, limits  # RFC 5321 section 4.1.1.9: whatever it says
    return s, Say(replies.OK, "NOOP")


def _quit(s: Session, argument: bytes, limits: Limits) -> Step:
    if argument:
        return _say(s, replies.SYNTAX, limits, "QUIT")
    # Over TLS we cannot end our half alone, and who waits for that end would wait for nothing.
    return s, SayAndClose(replies.bye(limits.host), "QUIT", linger=not s.tls)


def _help(s: Session, argument: bytes, limits: Limits) -> Step:
    del argument, limits
    return s, Say(replies.HELP, "HELP")


def _vrfy(s: Session, argument: bytes, limits: Limits) -> Step:
    """RFC 5321 section 7.3: who is here is not told to strangers."""
    if not argument:
        return _say(s, replies.SYNTAX, limits, "VRFY")
    return s, Say(replies.CANNOT_VRFY, "VRFY")


def _etrn(s: Session, argument: bytes, limits: Limits) -> Step:
    """RFC 1985 section 5. A relay domain covers itself only and there are no named queues: neither `@name`
    (with all names below it) nor `#queue`."""
    if not s.extended:
        return _say(s, replies.HELO_FIRST, limits, "ETRN")
    if s.mail is not None:
        return _say(s, replies.IN_TRANSACTION, limits, "ETRN")
    if argument[:1] in (b"@", b"#"):
        return _say(s, replies.ONE_BY_ONE, limits, "ETRN")
    try:
        return s, RequestFlush(domain_name(argument.decode("ascii")))
    except (BadAddress, UnicodeDecodeError):
        return _say(s, replies.SYNTAX, limits, "ETRN")


def _xforward(s: Session, argument: bytes, limits: Limits) -> Step:
    said = _told(s, argument)
    if isinstance(said, Reply):
        return _say(s, said, limits, "XFORWARD")
    named = upstream.forwarded(s.named or Origin(s.relay), said)
    return replace(s, named=named), Say(replies.OK, "XFORWARD")


def _xclient(s: Session, argument: bytes, limits: Limits) -> Step:
    """All begins again, with what the command says."""
    said = _told(s, argument)
    if isinstance(said, Reply):
        return _say(s, said, limits, "XCLIENT")
    client = (s.represented or "") if said.client is None else said.client
    s = Session(said.helo or "", said.extended, s.tls, s.errors, relay=s.relay, represented=client)
    return s, Represent(client)


def _told(s: Session, argument: bytes) -> Reply | upstream.Told:
    """What a trusted relay says, or why it is not heard."""
    if not s.extended:
        return replies.HELO_FIRST
    if s.mail is not None:
        return replies.IN_TRANSACTION
    try:
        return upstream.told(argument)
    except BadParameter:
        return replies.SYNTAX


def _starttls(s: Session, argument: bytes, limits: Limits) -> Step:
    """RFC 3207 section 4."""
    if argument:
        return _say(s, replies.SYNTAX, limits, "STARTTLS")
    if s.tls:
        return _say(s, replies.TLS_ALREADY, limits, "STARTTLS")
    if not limits.tls:
        return _say(s, replies.TLS_NOT_AVAILABLE, limits, "STARTTLS")
    return s, StartTls(replies.READY_FOR_TLS)


_COMMANDS: dict[bytes, Callable[[Session, bytes, Limits], Step]] = {
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _data,
    b"RSET": _rset,
    b"NOOP": _noop,
    b"QUIT": _quit,
    b"HELP": _help,
    b"VRFY": _vrfy,
    b"EXPN": _vrfy,
    b"STARTTLS": _starttls,
    b"ETRN": _etrn,
}
_OF_RELAYS: dict[bytes, Callable[[Session, bytes, Limits], Step]] = {
    b"XFORWARD": _xforward,
    b"XCLIENT": _xclient,
}
