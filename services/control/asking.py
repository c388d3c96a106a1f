"""What a person asks for mails: which ones, read and checked."""

from collections.abc import Mapping
from typing import NamedTuple

from libs.mail.address import BadAddress, domain_name, mailbox
from libs.mail.records import Bounce, Delete, Hold, MailRequest, Redeliver, Release, Retry, Which
from services.control.access import duration_s
from services.control.domains import Malformed, named
from services.control.queue import mail_id

VERBS: Mapping[str, type[MailRequest]] = {
    "retry": Retry,
    "hold": Hold,
    "release": Release,
    "delete": Delete,
    "bounce": Bounce,
    "redeliver": Redeliver,
}
COUNTS = ("changed", "already", "unchanged", "busy")


class Asked(NamedTuple):
    """`id`: of one mail; "": all mails of `domain` ("": of every domain) that `which` selects."""

    verb: type[MailRequest]
    id: str
    domain: str
    which: Which

    def request(self, request_id: str, domain: str, by: str) -> MailRequest:
        """The record for one partition; `domain`: whose events it answers with."""
        return self.verb(request_id, domain, self.id, by, self.which)


def asked(verb: str, words: Mapping[str, str]) -> Asked:
    """`words`: those that were given of id, domain, sender, recipient and older. Raises Malformed."""
    if verb not in VERBS:
        raise Malformed(f"{verb!r} is nothing that can be done to mail; there are {', '.join(VERBS)}")
    given = {name: text for name, text in words.items() if text}
    if not given:
        raise Malformed("say which mail: an id, or a domain, sender, recipient or age")
    if "id" in given and len(given) > 1:
        raise Malformed("an id stands for one mail: leave out the rest")
    which = Which(
        sender=_address(given["sender"]) if "sender" in given else "",
        recipient=_address(given["recipient"]) if "recipient" in given else "",
        older_s=duration_s(given["older"]) if "older" in given else 0.0,
    )
    id_ = mail_id(given["id"]) if "id" in given else ""
    return Asked(VERBS[verb], id_, named(given["domain"]) if "domain" in given else "", which)


def _address(text: str) -> str:
    """A mailbox in normal form, `@domain`, or <>. Raises Malformed."""
    text = text.strip()
    if text == "<>":
        return text
    try:
        return f"@{domain_name(text[1:])}" if text.startswith("@") else mailbox(text).key
    except BadAddress as error:
        raise Malformed(f"{text!r} is neither a mail address, nor @ and a domain, nor <>") from error
