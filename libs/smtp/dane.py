"""DANE (RFC 6698, 7671, 7672): do a server's certificates match what its DNS says of them?"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

TRUST_ANCHOR, END_ENTITY = 2, 3  # certificate usages DANE-TA and DANE-EE; mail knows no others
_CERTIFICATE, _KEY = 0, 1  # selectors
_EXACT, _SHA256, _SHA512 = 0, 1, 2  # matching types
_LENGTHS = {_SHA256: 32, _SHA512: 64}

# A private authority need not follow the rules of the web's: signatures, dates and the name count.
_AUTHORITIES = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
_SERVERS = ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
)


class Tlsa(NamedTuple):
    """A TLSA record."""

    usage: int
    selector: int
    matching: int
    data: bytes


def usable(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """Those that can be matched (RFC 7672 section 3.1: usages 0 and 1 cannot); of two digests of the same
    usage and selector the stronger one alone (RFC 7671 section 9)."""
    fit = [record for record in records if _fits(record)]
    strong = {(record.usage, record.selector) for record in fit if record.matching == _SHA512}
    return tuple(
        record
        for record in fit
        if not (record.matching == _SHA256 and (record.usage, record.selector) in strong)
    )


def _fits(record: Tlsa) -> bool:
    return (
        record.usage in (TRUST_ANCHOR, END_ENTITY)
        and record.selector in (_CERTIFICATE, _KEY)
        and record.matching in (_EXACT, _SHA256, _SHA512)
        and len(record.data) == _LENGTHS.get(record.matching, len(record.data) or -1)
    )


def authenticated(
    records: Sequence[Tlsa], chain: Sequence[bytes], names: Sequence[str], now: datetime
) -> bool:
    """Is the server that showed `chain` (DER, its own certificate first) the one that `records` describe?

    An end entity's certificate is looked at for nothing else, neither names nor dates (RFC 7672 section
    3.1.1). A trust anchor must lead to a certificate for one of `names` that is valid at `now` (UTC).
    """
    try:
        certificates = [x509.load_der_x509_certificate(each) for each in chain]
    except ValueError:
        return False
    if not certificates:
        return False
    if any(record.usage == END_ENTITY and _matches(record, certificates[0]) for record in records):
        return True
    anchors = [
        anchor
        for record in records
        if record.usage == TRUST_ANCHOR
        for anchor in (*certificates[1:], *_carried(record))
        if _matches(record, anchor)
    ]
    return any(_leads(anchor, certificates, name, now) for anchor in anchors for name in names)


def _carried(record: Tlsa) -> list[x509.Certificate]:
    """A trust anchor that stands whole in DNS: the server need not show it."""
    if (record.selector, record.matching) != (_CERTIFICATE, _EXACT):
        return []
    try:
        return [x509.load_der_x509_certificate(record.data)]
    except ValueError:
        return []


def _matches(record: Tlsa, certificate: x509.Certificate) -> bool:
    try:
        octets = (
            certificate.public_bytes(Encoding.DER)
            if record.selector == _CERTIFICATE
            else certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
    except ValueError:  # a key of a kind that is not known here
        return False
    match record.matching:
        case 1:
            octets = hashlib.sha256(octets).digest()
        case 2:
            octets = hashlib.sha512(octets).digest()
    return octets == record.data


def _leads(anchor: x509.Certificate, chain: Sequence[x509.Certificate], name: str, now: datetime) -> bool:
    builder = (
        PolicyBuilder()
        .store(Store([anchor]))
        .time(now)
        .extension_policies(ca_policy=_AUTHORITIES, ee_policy=_SERVERS)
    )
    try:
        builder.build_server_verifier(x509.DNSName(name)).verify(chain[0], list(chain[1:]))
    except (VerificationError, ValueError):  # ValueError: a host name that no certificate can hold
        return False
    return True
