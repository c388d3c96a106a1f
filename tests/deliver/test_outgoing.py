"""Whom the primary is told that a mail is of."""

from ipaddress import ip_network

import pytest
from msgspec.structs import replace

from libs.mail.codec import new_entry
from libs.mail.records import Basis, ContentRef, Domain, Kind, Mail, Overrides, Recipient
from libs.mail.settings import Defaults, complete
from libs.smtp.commands import Visitor
from services.deliver.outgoing import Job, visitor

RELAYS = (ip_network("192.0.2.0/28"), ip_network("2001:db8::/64"))
MAIL = Mail(
    id="mail000001",
    domain="office.example",
    next_hop="office.example",
    kind=Kind.RELAYED,
    reverse_path="eve@sender.example",
    recipients=(Recipient("ann@office.example", Basis.DELIVERABLE),),
    prepend=b"",
    arrived=1.0,
    may_notify=True,
    client="198.51.100.7",
    helo="mail.sender.example",
)


def told(mail: Mail, *, xclient: bool | None = True) -> Visitor | None:
    settings = complete(Defaults(), Domain("office.example", 1.0, 1.0, overrides=Overrides(xclient=xclient)))
    return visitor(Job(new_entry(mail), mail, ContentRef(0, (0,), 5)), settings, RELAYS)


def test_the_client() -> None:
    assert told(MAIL) == Visitor("198.51.100.7", "mail.sender.example")


@pytest.mark.parametrize("client", ["192.0.2.7", "2001:db8::7", ""])
def test_who_had_it_from_others_or_is_not_known(client: str) -> None:
    """A trusted relay is no sender: SPF on its address would be wrong at the primary, too."""
    assert told(replace(MAIL, client=client)) is None


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.RELAYED])
def test_mail_of_our_own(kind: Kind) -> None:
    assert told(replace(MAIL, kind=kind)) is None


def test_only_where_it_is_wanted() -> None:
    assert told(MAIL, xclient=None) is None
    assert told(MAIL, xclient=False) is None
    assert visitor(Job(new_entry(MAIL), MAIL, ContentRef(0, (0,), 5)), None) is None
