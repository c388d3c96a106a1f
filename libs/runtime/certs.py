"""The certificate that we show: read from its files, and again when they change.

Whoever renews certificates writes two files, one after the other, or swaps a link. What cannot be used at the
moment (half of a pair, a file cut off) changes nothing: the old certificate goes on until they are right.
"""

import ssl
from pathlib import Path

import structlog
from cryptography import x509

from libs.runtime.metrics import Metrics

Stamp = tuple[tuple[int, ...] | None, ...]

log = structlog.get_logger()


class BadCertificate(Exception):  # noqa: N818
    """The files are no certificate with its key; the message says which and why, in one line."""


class Certificates:
    """`context` is the newest that could be made of the files; connections in hand keep theirs."""

    def __init__(self, certificate: Path, key: Path, metrics: Metrics) -> None:
        """Raises BadCertificate."""
        self._files, self._metrics = (certificate, key), metrics
        self._stamp = self._stamps()
        self.context = self._read()

    def look(self, *, anyway: bool = False) -> None:
        """Read the files if they changed since the last look, or `anyway`."""
        stamp = self._stamps()
        if stamp == self._stamp and not anyway:
            return
        self._stamp = stamp  # a wrong pair is told once, and tried again when a file of it changes
        try:
            self.context = self._read()
        except BadCertificate as error:
            self._metrics.tls_loads.labels("failed").inc()
            log.warning("the new certificate cannot be used, the old one stays", error=str(error))

    def _read(self) -> ssl.SSLContext:
        context = server_context(*self._files)
        try:
            [leaf, *_] = x509.load_pem_x509_certificates(self._files[0].read_bytes())
        except (OSError, ValueError) as error:  # changed just now, or such as OpenSSL alone takes
            raise BadCertificate(f"{self._files[0]} cannot be read") from error
        expires = leaf.not_valid_after_utc
        self._metrics.tls_loads.labels("loaded").inc()
        self._metrics.tls_expiry.set(expires.timestamp())
        log.info("certificate loaded", file=str(self._files[0]), expires=expires.isoformat())
        return context

    def _stamps(self) -> Stamp:
        """What changes when a file is written, replaced, linked to another one or let be read."""
        return tuple(_stamp(file) for file in self._files)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or later (RFC 8996), no client certificates asked for. Raises BadCertificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise BadCertificate(f"{certificate} with {key} cannot be used: {_why(error)}") from error
    return context


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        return "the key is of another certificate" if mismatch else "no certificate and key in PEM"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _no_password() -> str:
    """Without it OpenSSL would ask on the terminal for the password of an encrypted key."""
    raise ValueError("the key is encrypted")


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
