"""Clients that send one mail and end: Python's smtplib, swaks, msmtp, curl. Each shows what we said to it."""

import asyncio
import smtplib
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from shutil import which
from typing import Protocol

import pytest

from tests.helpers.mailing import content, stuffed
from tests.real.place import ANN, BOB, EVE, NOBODY, Place
from tests.real.room import Room, Said

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST = "mx1.backup.example"
Send = Callable[[str, str, bool], Awaitable[Said]]  # recipient, token, with TLS


class Client(Protocol):
    """Makes a Send."""

    def __call__(self, at: Place, folder: Path, unpacked: Callable[[str], Path]) -> Send: ...


def by_smtplib(at: Place, folder: Path, unpacked: Callable[[str], Path]) -> Send:
    del unpacked
    trust = folder / "trust.pem"
    trust.write_bytes(at.trust)

    def talk(recipient: str, token: str, tls: bool) -> Said:
        # The name is what the certificate is checked for; the socket is connected by hand.
        with smtplib.SMTP(local_hostname="client.sender.example", timeout=30) as client:
            client.connect("127.0.0.1", at.tap.port)
            client._host = HOST
            if tls:
                client.starttls(context=ssl.create_default_context(cafile=str(trust)))
            client.ehlo_or_helo_if_needed()
            client.mail(EVE, ["BODY=8BITMIME"])
            said = client.rcpt(recipient)
            if said[0] == 250:
                said = client.data(content(token))
            return Said(said[0] != 250, f"{said[0]} {said[1].decode()}", "")

    return lambda recipient, token, tls: asyncio.to_thread(talk, recipient, token, tls)


def by_swaks(at: Place, folder: Path, unpacked: Callable[[str], Path]) -> Send:
    room = Room(folder / "room", unpacked("swaks"))
    (room.etc / "trust.pem").write_bytes(at.trust)

    async def send(recipient: str, token: str, tls: bool) -> Said:
        options = ["--tls", "--tls-verify", "--tls-ca-path", "/etc/trust.pem"] if tls else ["--pipeline"]
        return await room.run(
            "swaks", "--server", "127.0.0.1", "--port", str(at.tap.port), "--ehlo", "client.sender.example",
            "--from", EVE, "--to", recipient, "--no-data-fixup", "--data", "-", *options,
            given=stuffed(content(token)),
        )  # fmt: skip

    return send


def by_msmtp(at: Place, folder: Path, unpacked: Callable[[str], Path]) -> Send:
    room = Room(folder / "room", unpacked("msmtp"))
    (room.etc / "trust.pem").write_bytes(at.trust)

    async def send(recipient: str, token: str, tls: bool) -> Said:
        encrypted = ("on", "--tls-trust-file=/etc/trust.pem", f"--tls-host-override={HOST}")
        first, *rest = encrypted if tls else ("off",)
        return await room.run(
            "msmtp", "--debug", "--host=127.0.0.1", f"--port={at.tap.port}", "--domain=client.sender.example",
            f"--from={EVE}", "--set-date-header=off", "--set-from-header=off", "--dsn-notify=failure,delay",
            "--dsn-return=hdrs", f"--tls={first}", *rest, "--", recipient,
            given=content(token).replace(b"\r\n", b"\n"),
        )  # fmt: skip

    return send


def by_curl(at: Place, folder: Path, unpacked: Callable[[str], Path]) -> Send:
    del unpacked
    if which("curl") is None:
        pytest.skip("there is no curl on this machine")
    trust = folder / "trust.pem"
    trust.write_bytes(at.trust)

    def talk(recipient: str, token: str, tls: bool) -> Said:
        options = ["--ssl-reqd", "--cacert", str(trust)] if tls else []
        done = subprocess.run(
            ["curl", "-sSv", "--connect-to", f"{HOST}:{at.tap.port}:127.0.0.1:{at.tap.port}",
             "--noproxy", "*", "--url", f"smtp://{HOST}:{at.tap.port}/client.sender.example",
             "--mail-from", EVE, "--mail-rcpt", recipient, "--upload-file", "-", *options],
            input=content(token), capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return Said(done.returncode, "", done.stderr.decode("utf-8", "replace"))

    return lambda recipient, token, tls: asyncio.to_thread(talk, recipient, token, tls)


CLIENTS = [pytest.param(each, id=each.__name__[3:]) for each in (by_smtplib, by_swaks, by_msmtp, by_curl)]


@pytest.fixture(params=CLIENTS)
def send(
    request: pytest.FixtureRequest, at: Place, tmp_path: Path, unpacked: Callable[[str], Path]
) -> tuple[str, Send]:
    make: Client = request.param
    return request.node.callspec.id, make(at, tmp_path, unpacked)


async def test_in_clear(at: Place, send: tuple[str, Send]) -> None:
    """The mail arrives once, octet by octet, and the client saw its 250."""
    name, sends = send
    said = await sends(ANN, f"{name}-clear", False)
    assert said.code == 0, said
    assert "250 2.0.0 Ok: queued as " in said.out + said.err
    (mail,) = await at.arrived(f"{name}-clear")
    assert (mail.reverse_path, [address for address, _ in mail.recipients]) == (EVE, [ANN])
    assert b"\twith ESMTP id " in mail.content


async def test_with_tls(at: Place, send: tuple[str, Send]) -> None:
    """The same over STARTTLS, our certificate checked."""
    name, sends = send
    said = await sends(BOB, f"{name}-tls", True)
    assert said.code == 0, said
    assert "250 2.0.0 Ok: queued as " in said.out + said.err
    (mail,) = await at.arrived(f"{name}-tls")
    assert b"\twith ESMTPS (TLSv1.3 " in mail.content
    assert not any(b"MAIL FROM:" in piece for piece in at.tap.sent)


async def test_an_unknown_recipient(at: Place, send: tuple[str, Send]) -> None:
    """The client ends with a failure that shows our 550 5.1.1."""
    name, sends = send
    said = await sends(NOBODY, f"{name}-unknown", False)
    assert said.code != 0
    assert "550 5.1.1 " in said.out + said.err
    assert not any(f"{name}-unknown".encode() in mail.content for mail in at.office.received)


async def test_msmtp_says_whom_to_tell(at: Place, tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    """NOTIFY and RET (RFC 3461) get to the primary as msmtp wrote them."""
    said = await by_msmtp(at, tmp_path, unpacked)(ANN, "msmtp-dsn", False)
    assert said.code == 0, said
    (mail,) = await at.arrived("msmtp-dsn")
    assert mail.params["RET"] == "HDRS"
    assert set(mail.recipients[0][1]["NOTIFY"].split(",")) == {"FAILURE", "DELAY"}


async def test_swaks_pipelines(at: Place, tmp_path: Path, unpacked: Callable[[str], Path]) -> None:
    """RFC 2920: the envelope of swaks --pipeline is taken in one piece."""
    said = await by_swaks(at, tmp_path, unpacked)(ANN, "swaks-pipelined", False)
    assert said.code == 0, said
    await at.arrived("swaks-pipelined")
    assert [line[:4] for line in at.tap.group()] == [b"MAIL", b"RCPT", b"DATA"]
