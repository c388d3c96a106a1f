"""TLS of a whole process, under its own event loop: SIGHUP, and what comes in clear behind STARTTLS."""

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
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


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def certified(folder: Path) -> AsyncIterator[Running]:
    """A process with the certificate in `folder`/tls."""
    async with (
        Zone("") as zone,
        Running(
            folder / "run",
            dns=zone.servers,
            dial_port=25,
            smtp__tls_certificate=str(folder / "tls/cert.pem"),
            smtp__tls_key=str(folder / "tls/key.pem"),
        ) as running,
    ):
        yield running


async def test_plaintext_behind_starttls(tmp_path: Path) -> None:
    """RFC 3207 4.2: what came in clear behind STARTTLS is discarded, however much it is; what was said before
    it is forgotten."""
    authority = trustme.CA()
    context = trusting(authority)
    issue(authority, tmp_path / "tls")
    async with certified(tmp_path) as running:
        for octets in (b"NOOP\r\n", b"MAIL FROM:<evil@sender.example>\r\n"):
            async with Client(running.smtp_port) as client:
                await client.greet()
                await client.send(b"STARTTLS\r\n" + octets)
                assert (await client.reply()).startswith("220 ")
                await client._writer.start_tls(context, server_hostname=HOST)
                await client.talk("C: RCPT TO:<a@b.example>\nS: 503 5.5.1 ...\nC: DATA\nS: 503 5.5.1 ...")
                await client.send(b"EHLO client.sender.example\r\n")
                assert "STARTTLS" not in await client.reply()
        await asyncio.to_thread(flooded, running.smtp_port, context)
        assert await running.metric("solo", "backupmx_session_errors_total") == 0
        assert await running.metric("solo", 'backupmx_tls_handshakes_total{outcome="failed"}') == 1


def flooded(port: int, context: ssl.SSLContext) -> None:
    """So much in clear that the handshake reads the rest of it, and fails: there is no session."""
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        plain.recv(1000)
        plain.sendall(b"EHLO client.sender.example\r\n")
        plain.recv(1000)
        with pytest.raises(OSError):  # noqa: PT011, PT012 reset here or there, or no TLS
            plain.sendall(b"STARTTLS\r\n" + b"RSET\r\n" * 100_000)
            context.wrap_socket(plain, server_hostname=HOST)


async def test_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    """SIGHUP does not end the process: it reads the certificate again, and a broken one changes nothing."""
    authority = trustme.CA()
    context = trusting(authority)
    first = issue(authority, tmp_path / "tls")
    async with certified(tmp_path) as running:

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
