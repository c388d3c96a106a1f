"""TLS as a client: contexts for what is asked for, what a server showed, and words for what went wrong."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiosmtplib.errors import SMTPResponseException

from libs.mail.reply import foreign
from libs.smtp.dane import authenticated
from libs.smtp.tls_policy import Need, Tls


class Contexts:
    """`authorities`: a PEM file of those who may sign certificates, None: those of the system."""

    def __init__(self, authorities: Path | None) -> None:
        self._any, self._named = _any(), trusting(authorities)

    def of(self, tls: Tls) -> ssl.SSLContext:
        return self._named if tls.need is Need.NAMED else self._any


def trusting(authorities: Path | None) -> ssl.SSLContext:
    """Certificates must be for the name that is asked for, and not merely in their subject."""
    context = ssl.create_default_context(cafile=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    return context


def _any() -> ssl.SSLContext:
    """No certificate is checked (RFC 7435), old ciphers are taken: the alternative is no encryption."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def mismatch(session: ssl.SSLObject, tls: Tls, wall: float) -> str:
    """Why the certificate is not the one that `tls` wants, "" when it is (or none is wanted)."""
    if tls.need is not Need.DANE:
        return ""
    now = datetime.fromtimestamp(wall, UTC)
    fits = authenticated(tls.tlsa, shown(session), tls.names, now)
    return "" if fits else "the certificate matches no TLSA record"


def shown(session: ssl.SSLObject) -> list[bytes]:
    """The certificates that the server showed, its own first, in DER.

    Python has a public way to all of them from 3.13 on; before, it is a method of what an SSLObject wraps.
    """
    inner: Any = session
    if hasattr(inner, "get_unverified_chain"):
        return list(inner.get_unverified_chain() or ())
    return [
        ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in inner._sslobj.get_unverified_chain() or ()
    ]


def version(session: ssl.SSLObject) -> str:
    cipher = session.cipher()
    return f"{session.version()} {cipher[0] if cipher else ''}".strip()


def reason(error: Exception) -> str:
    """In a few words."""
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or 'failed'}"
    if isinstance(error, SMTPResponseException) and error.code > 0:
        return f"STARTTLS: {foreign(error.code, error.message).line()}"
    if isinstance(error, TimeoutError):
        return "STARTTLS timed out"
    return f"STARTTLS: {str(error) or type(error).__name__}"
