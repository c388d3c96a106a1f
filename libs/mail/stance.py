"""What a reply says of the primary itself: fine, blocking us, greylisting, or nothing that could be held
against it.

A refusal of one recipient, one sender or one content is nothing: only a sentence about our address, our name
or our host is a block. Two recipients refused in a row are one, too (services/verify/asking.py); no single
reply can say that.
"""

import re
from enum import StrEnum

from libs.mail.reply import Foreign
from libs.mail.speaks import Speaks, Stage, handed_on, speaks, words


class Stance(StrEnum):
    """FINE: it spoke of the mailbox. BLOCKING: it refuses us, whomever we ask about. GREYLISTING: we shall
    come again. CATCH_ALL: it takes a recipient that cannot exist. LATE_REJECTING: it denies after the final
    dot a recipient that it took. NOTHING: no word about us."""

    FINE = "fine"
    BLOCKING = "blocking"
    GREYLISTING = "greylisting"
    CATCH_ALL = "catch-all"
    LATE_REJECTING = "late rejecting"
    NOTHING = "nothing"


_BEFORE_RCPT = (Stage.BANNER, Stage.EHLO, Stage.MAIL)
_I = re.IGNORECASE
# Whose address it is must be said: "access denied for this user" is about a mailbox.
_US = (
    r"\b(client host|(your|sending|connecting|remote|client|source)( mail)? ?"
    r"(ip|host|server|mta|network|address|ip address|system)|ip[- ]?ad+ress\w*|ip|(ihre?|absende\w*)[- ]ip\w*"
    r"|host|server)\b"
)
_REFUSED = (
    r"(block|black|ban+(ed)?\b|reject|refus|denied|deny|listed|not (allowed|accepted)|gesperrt|abgelehnt"
    r"|reputation)"
)
_BLOCK = re.compile(
    rf"{_US}.{{0,60}}?\b{_REFUSED}|\bban+ed sending ip|blocked using\b"
    r"|\b(black|block|deny|sperr)[- ]?list(ed)?\b.{0,60}?\bip\b"
    r"|spamhaus|spamcop|sorbs\.|uceprotect|barracuda(central| reputation)|nixspam|\brbls?\b|dnsbl"
    r"|cannot find your (reverse )?host ?name|(from|of) (this|your) ip\b|fix reverse dns"
    r"|(no|missing|invalid) (ptr|reverse[- ]dns|rdns)"
    r"|(ptr|reverse[- ]dns|rdns)\b.{0,40}\b(required|missing|not|fail)|\bhelo command rejected"
    r"|country|geo-?(block|ip)|must issue a starttls|authentication (is )?required",
    _I,
)
# A door that is shut for everybody: no such domain here, or our callout's own sender taken for a forgery.
_SHUT = re.compile(
    r"\brelay(ing)? (access )?(is )?(denied|not (permitted|allowed)|prohibited)|not permitted to relay"
    r"|unable to relay|rcpthosts|badmailfrom|tenant(inbound)?attribution|do not relay|\brelay nicht"
    r"|sender address rejected: \W*(domain|user unknown|unverified|undeliverable|malformed)"
    r"|sender verify failed|verification failed for|domain of (sender )?address|mx for sender domain"
    r"|\bcall(back|out) "
    r"|\bspf\b.{0,60}\b(fail|reject|denied|not allowed|unauthori[sz]ed)",
    _I,
)
_LIST_LINK = re.compile(r"https?://\S*(spamhaus|spamcop|barracuda|sorbs|uceprotect|proofpoint)", _I)
# It says why, and that is its own trouble: not a first try that it wants to see again.
_TROUBLED = re.compile(
    r"problem|\berror\b|failure|failed|timed? ?out|lookup|busy|resource|too many|\brate\b|limit|throttl", _I
)
_OTHERS = re.compile(
    r"\bsenders?\b|resolver\.rst|\babsender\w*|mail ?from\b|return[- ]path|\bcontent\b|\bmessage\b", _I
)


def stance(stage: str, reply: Foreign | None, *, invented: bool = False) -> Stance:
    """What `reply` to `stage` (a Stage, any case) says of the primary; None: the session broke, and nobody
    can tell a block from an outage. `invented`: the recipient cannot exist."""
    if reply is None:
        return Stance.NOTHING
    stage, reply = stage.upper(), handed_on(reply)
    about = speaks(stage, reply)
    if about is Speaks.GREYLIST:
        return Stance.NOTHING if _TROUBLED.search(words(reply)) else Stance.GREYLISTING
    if about is Speaks.POLICY and stage in _BEFORE_RCPT:
        return Stance.BLOCKING
    if about not in (Speaks.OK, Speaks.NO_MAILBOX, Speaks.QUOTA) and stage != Stage.DOT and blocks(reply):
        return Stance.BLOCKING
    if stage == Stage.DOT and about is Speaks.NO_MAILBOX:
        return Stance.LATE_REJECTING
    if stage == Stage.RCPT and about is Speaks.OK and invented:
        return Stance.CATCH_ALL
    spoke = stage in (Stage.RCPT, Stage.DOT) and about in (Speaks.OK, Speaks.NO_MAILBOX, Speaks.QUOTA)
    return Stance.FINE if spoke else Stance.NOTHING


def blocks(reply: Foreign) -> bool:
    """Does it refuse our address, name, host or callout's sender, or the whole domain, in so many words?"""
    text = words(reply)
    if reply.code == 530 or reply.enhanced in ("5.1.8", "5.7.23", "5.7.25"):
        return True
    if _SHUT.search(text) or _LIST_LINK.search(reply.text):
        return True
    return bool(_BLOCK.search(text)) and not _OTHERS.search(text)
