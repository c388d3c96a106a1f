"""A small public key infrastructure, made once: root, middle, leaf and some that do not belong to it."""

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOST = "mx.office.example"
NOW = datetime(2026, 12, 1, tzinfo=UTC)


class Issued(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def issue(name: str, by: Issued | None, *, ca: bool, until: datetime, host: str = "") -> Issued:
    """A certificate with no more in it than a small company's own authority would put there."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=400))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return Issued(builder.sign(by.key if by else key, hashes.SHA256()), key)


@functools.cache
def issued() -> Mapping[str, Issued]:
    later, ago = NOW + timedelta(days=36_500), NOW - timedelta(days=1)
    root = issue("root", None, ca=True, until=later)
    middle = issue("middle", root, ca=True, until=later)
    return {
        "root": root,
        "middle": middle,
        "leaf": issue("leaf", middle, ca=False, until=later, host=HOST),
        "old": issue("old", middle, ca=False, until=ago, host=HOST),
        "alone": issue("alone", None, ca=False, until=later, host="elsewhere.example"),
        "stranger": issue("stranger", None, ca=True, until=later),
    }
