"""The certificate in use: what is read when, and what stays when the new files are wrong."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from libs.runtime.certs import BadCertificate, Certificates, server_context
from libs.runtime.metrics import Metrics

AUTHORITY = trustme.CA()


def issue(folder: Path) -> tuple[Path, Path]:
    """A new pair in `folder`."""
    issued = AUTHORITY.issue_cert("mx1.backup.example")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return certificate, key


def loads(metrics: Metrics, outcome: str) -> float:
    name = "backupmx_tls_certificate_loads_total"
    return metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


def test_new_files_are_read(tmp_path: Path) -> None:
    """A look after a change makes a new context, a look without one none; the metric says when it expires."""
    metrics = Metrics()
    certificates = Certificates(*issue(tmp_path), metrics)
    first = certificates.context
    certificates.look()
    assert certificates.context is first
    issue(tmp_path)
    certificates.look()
    assert certificates.context is not first
    [leaf, *_] = x509.load_pem_x509_certificates((tmp_path / "cert.pem").read_bytes())
    expiry = metrics.registry.get_sample_value("backupmx_tls_certificate_expiry_timestamp_seconds")
    assert expiry == leaf.not_valid_after_utc.timestamp()
    second = certificates.context
    certificates.look(anyway=True)
    assert certificates.context is not second


def test_half_a_pair_changes_nothing(tmp_path: Path) -> None:
    """The certificate was renewed, its key is not there yet: the old pair goes on until it is."""
    (tmp_path / "new").mkdir()
    metrics = Metrics()
    certificates = Certificates(*issue(tmp_path), metrics)
    first = certificates.context
    certificate, key = issue(tmp_path / "new")
    certificate.replace(tmp_path / "cert.pem")
    certificates.look()
    certificates.look()
    assert certificates.context is first
    assert loads(metrics, "failed") == 1
    key.replace(tmp_path / "key.pem")
    certificates.look()
    assert certificates.context is not first
    assert loads(metrics, "loaded") == 2


@pytest.mark.parametrize("octets", [b"", b"-----BEGIN CERTIFICATE-----\nMIIB", None])
def test_a_broken_file_changes_nothing(tmp_path: Path, octets: bytes | None) -> None:
    """An empty file, one cut off and one that is gone: the old certificate stays."""
    metrics = Metrics()
    certificates = Certificates(*issue(tmp_path), metrics)
    first = certificates.context
    if octets is None:
        (tmp_path / "cert.pem").unlink()
    else:
        (tmp_path / "cert.pem").write_bytes(octets)
    certificates.look()
    assert certificates.context is first
    assert loads(metrics, "failed") == 1


def test_a_link_to_other_files(tmp_path: Path) -> None:
    """A folder that is swapped by its link, as Kubernetes does with secrets, is a change."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        issue(tmp_path / name)
    now = tmp_path / "now"
    now.symlink_to("one")
    certificates = Certificates(now / "cert.pem", now / "key.pem", Metrics())
    first = certificates.context
    then = tmp_path / "then"
    then.symlink_to("other")
    then.rename(now)
    certificates.look()
    assert certificates.context is not first


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    """An encrypted key asks nobody for its password: it is a sentence like any other mistake."""
    certificate, key = issue(tmp_path)
    other = tmp_path / "other.pem"
    AUTHORITY.issue_cert("mx2.backup.example").private_key_pem.write_to_path(other)
    with pytest.raises(
        BadCertificate, match=r"cert\.pem with .*other\.pem cannot be used: the key is of another"
    ):
        server_context(certificate, other)
    secret = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(BadCertificate, match="the key is encrypted"):
        server_context(certificate, key)
    with pytest.raises(BadCertificate, match="No such file"):
        server_context(certificate, tmp_path / "nothing")


def test_old_protocols_are_not_spoken(tmp_path: Path) -> None:
    """RFC 8996: TLS 1.0 and 1.1 are not offered."""
    assert server_context(*issue(tmp_path)).minimum_version is ssl.TLSVersion.TLSv1_2
