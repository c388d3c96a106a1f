"""Whom a trusted relay had a mail from: the commands XFORWARD and XCLIENT of Postfix, as its files
XFORWARD_README and XCLIENT_README define them.

Both hold a list of attributes. XFORWARD speaks of the next mail, while the relay stays the client; XCLIENT
puts another client in the relay's place. Who is no trusted relay is offered neither.
"""

import ipaddress
from collections.abc import Mapping

from msgspec import Struct

from libs.mail.esmtp import BadParameter, unxtext
from libs.mail.records import Trace
from services.ingest.facts import Envelope, Origin
from services.ingest.proxy import plain

OFFERED = ("XFORWARD NAME ADDR PORT PROTO HELO SOURCE", "XCLIENT NAME ADDR PORT PROTO HELO")
_KNOWN = frozenset("NAME ADDR PORT PROTO HELO SOURCE IDENT LOGIN DESTADDR DESTPORT".split())
_UNKNOWN = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_OCTETS = 255  # of a value


class Told(Struct, frozen=True):
    """What one command says; None where it does not speak of that, "" where it is not known. `client`: an IP
    address; `extended`: EHLO was said, or HELO; `local`: the mail began at the relay itself."""

    client: str | None = None
    helo: str | None = None
    extended: bool = True
    local: bool = False


def told(argument: bytes) -> Told:
    """Raises BadParameter."""
    given = _attributes(argument)
    return Told(
        client=_address(given["ADDR"]) if "ADDR" in given else None,
        helo=given.get("HELO"),
        extended=given.get("PROTO", "").upper() != "SMTP",
        local=given.get("SOURCE", "").upper() == "LOCAL",
    )


def origin(relay: str, named: Origin | None, represented: str | None, helo: str) -> Origin | None:
    """Of the next mail; None for mail of a client that is no trusted relay. `named`: by XFORWARD;
    `represented`: the client of XCLIENT, which said `helo`. Never the relay itself: what it does not say is
    not known."""
    if not relay:
        return None
    if named is None and represented is not None:
        return Origin(relay, represented, helo)
    return named or Origin(relay)


def trace(envelope: Envelope, client: str, helo: str) -> Trace:
    """What authentication is told of the mail of a `client` that said `helo`."""
    origin = envelope.origin or Origin("", client, helo)
    return Trace(
        0,
        envelope.domain,
        origin.client,
        origin.helo,
        envelope.reverse_path,
        envelope.smtputf8,
        relay=origin.relay,
    )


def forwarded(earlier: Origin, said: Told) -> Origin:
    """What is known of the next mail: attributes may come one by one."""
    client = earlier.client if said.client is None else said.client
    helo = earlier.helo if said.helo is None else said.helo
    return Origin(earlier.relay, "" if said.local else client, helo)


def _attributes(argument: bytes) -> Mapping[str, str]:
    given: dict[str, str] = {}
    for word in argument.split():
        name, equals, value = word.partition(b"=")
        keyword = name.decode("ascii", "replace").upper()
        if not equals or keyword not in _KNOWN or keyword in given:
            raise BadParameter(keyword)
        given[keyword] = _value(value)
    if not given:
        raise BadParameter("none")
    return given


def _value(octets: bytes) -> str:
    """Decoded; "" for what is not known."""
    text = unxtext(octets.decode("latin-1"))
    if len(text) > _OCTETS or " " in text:
        raise BadParameter("value")
    return "" if text.upper() in _UNKNOWN else text


def _address(text: str) -> str:
    """An IP address; "" for what is none, such as the name of a protocol that is not SMTP."""
    if text[:5].upper() == "IPV6:":
        text = text[5:]
    try:
        return plain(str(ipaddress.ip_address(text)))
    except ValueError:
        return ""
