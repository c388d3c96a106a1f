"""What TLS with a mail server must be: DANE (RFC 7672) and MTA-STS (RFC 8461) say, else it is opportunistic.

What they ask for and does not come about is a trouble of the server's, and for a time: its mail waits.
"""

from enum import StrEnum

from msgspec import Struct

from libs.smtp.dane import Tlsa, usable
from libs.smtp.sts_policy import Mode, Policy, covers


class Need(StrEnum):
    """OPPORTUNISTIC: any encryption, or none. ENCRYPTED: any encryption. NAMED: a certificate for one of the
    names, by an authority that we trust. DANE: a certificate that the TLSA records describe."""

    OPPORTUNISTIC = "opportunistic"
    ENCRYPTED = "encrypted"
    NAMED = "named"
    DANE = "dane"


class Tls(Struct, frozen=True):
    """`by`: who asks for it, for people; `name`: in the certificate, and asked for with SNI; `names`: those
    that a trust anchor of DANE may lead to."""

    need: Need = Need.OPPORTUNISTIC
    by: str = ""
    name: str = ""
    names: tuple[str, ...] = ()
    tlsa: tuple[Tlsa, ...] = ()


class Barred(Struct, frozen=True):
    """This server may not have the mail now."""

    reason: str


ANY = Tls()


class Signed(Struct, frozen=True):
    """What DNS says of a server's certificates. `trouble`: it should say something and does not answer, or
    what it says is forged: then nothing may be sent (RFC 7672 section 2.1.2)."""

    records: tuple[Tlsa, ...] = ()
    trouble: bool = False


UNSIGNED = Signed()


def required(domain: str, host: str, sts: Policy | None, signed: Signed) -> Tls | Barred:
    """For mail of `domain` to its MX `host`. DANE says how the server is known where it says anything (RFC
    8461 section 2); which hosts there are MTA-STS says all the same."""
    if signed.trouble:
        return Barred("DANE: no TLSA answer")
    if sts is not None and sts.mode is Mode.ENFORCE and not covers(sts, host):
        return Barred(f"MTA-STS: {host} is not in the policy")
    if fit := usable(signed.records):
        return Tls(Need.DANE, "DANE", host, tuple(dict.fromkeys((host, domain))), fit)
    if sts is not None and sts.mode is Mode.ENFORCE:
        return Tls(Need.NAMED, "MTA-STS", host)
    if signed.records:
        return Tls(
            Need.ENCRYPTED, "DANE", host
        )  # RFC 7672 section 2.2: nobody can use them, they promise TLS
    return ANY


def known_as(name: str) -> Tls:
    """The owner said by which name his server is known."""
    return Tls(Need.NAMED, "tls_name", name)
