"""SIGHUP on a whole process, under its own event loop."""

import signal
import ssl
from pathlib import Path

import trustme

from tests.helpers.client import Client
from tests.helpers.running import Running
from tests.helpers.zone import Zone

HOST = "mx1.backup.example"


def issue(authority: trustme.CA, folder: Path) -> bytes:
    """A new certificate and key in `folder`; the certificate as a client sees it."""
    issued = authority.issue_cert(HOST)
    folder.mkdir(exist_ok=True)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


async def test_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    """SIGHUP does not end the process: it reads the certificate again, and a broken one changes nothing."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    first = issue(authority, tmp_path / "tls")
    async with (
        Zone("") as zone,
        Running(
            tmp_path / "run",
            dns=zone.servers,
            dial_port=25,
            smtp__tls_certificate=str(tmp_path / "tls/cert.pem"),
            smtp__tls_key=str(tmp_path / "tls/key.pem"),
        ) as running,
    ):

        async def shown() -> object:
            async with Client(running.smtp_port) as client:
                await client.greet()
                await client.start_tls(context, HOST)
                await client.send(b"NOOP\r\n")
                assert (await client.reply()).startswith("250")
                return client._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)

        def said(text: str) -> int:
            return sum(line.get("event") == text for line in running.lines("solo"))

        assert await shown() == first
        second = issue(authority, tmp_path / "tls")
        running.send("solo", signal.SIGHUP)
        await running.until(lambda: said("certificate loaded") == 2)
        assert await shown() == second
        (tmp_path / "tls/key.pem").write_text("")
        running.send("solo", signal.SIGHUP)
        await running.until(lambda: said("the new certificate cannot be used, the old one stays"))
        assert await shown() == second
        assert await running.metric("solo", "backupmx_tls_certificate_expiry_timestamp_seconds") > 0
        assert await running.stop("solo") == 0
