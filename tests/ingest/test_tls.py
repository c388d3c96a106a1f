"""TLS on the running service, with real handshakes."""

import asyncio
import gc
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from services.ingest.connection import Connection
from tests.helpers.client import Client
from tests.helpers.clock import Clock
from tests.helpers.patience import until
from tests.ingest.house import HOST, House
from tests.ingest.test_service import ANN, certified, opened, trusting


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def shown(client: Client) -> bytes:
    """The certificate that the server showed."""
    found = client._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert isinstance(found, bytes)
    return found


async def handshake(house: House, context: ssl.SSLContext) -> bytes:
    """The certificate of a new session."""
    async with house.client() as client:
        await client.greet()
        await client.start_tls(context, HOST)
        return shown(client)


async def test_a_new_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    """A changed certificate is shown within a minute, without a restart; a session in hand goes on."""
    clock = Clock()
    async with House(tmp_path, clock=clock, smtp=certified(authority, tmp_path)) as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.start_tls(trusting(authority), HOST)
            before = shown(client)
            certified(authority, tmp_path)
            clock.advance(30)
            loaded = house.metrics.tls_loads.labels("loaded")._value
            await until(lambda: loaded.get() == 2)
            assert await handshake(house, trusting(authority)) != before
            await client.send(b"EHLO client.sender.example\r\n")
            await client.reply()
            assert (await client.mail(ANN)).startswith("250 ")


async def test_asked_to_read_it_again(tmp_path: Path, authority: trustme.CA) -> None:
    """SIGHUP reads the files at once; with broken ones the old certificate stays and mail flows."""
    async with House(tmp_path, smtp=certified(authority, tmp_path)) as house:
        await opened(house)
        before = await handshake(house, trusting(authority))
        (tmp_path / "cert.pem").write_bytes(b"nonsense")
        house.life.reload.set()
        failed = house.metrics.tls_loads.labels("failed")._value
        await until(lambda: failed.get() == 1)
        assert await handshake(house, trusting(authority)) == before
        certified(authority, tmp_path)
        house.life.reload.set()
        loaded = house.metrics.tls_loads.labels("loaded")._value
        await until(lambda: loaded.get() == 2)
        assert await handshake(house, trusting(authority)) != before


async def test_old_protocols(tmp_path: Path, authority: trustme.CA) -> None:
    """RFC 8996: TLS 1.1 is refused, TLS 1.2 and 1.3 are spoken; each is counted."""
    async with House(tmp_path, smtp=certified(authority, tmp_path)) as house:
        await opened(house)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(authority)
            context.minimum_version = context.maximum_version = version
            await handshake(house, context)
        with pytest.warns(DeprecationWarning, match="PROTOCOL_TLSv1_1"):
            old = ssl.SSLContext(ssl.PROTOCOL_TLSv1_1)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(house, old)
        assert [
            house.metrics.tls_handshakes.labels(outcome)._value.get()
            for outcome in ("TLSv1.2", "TLSv1.3", "failed")
        ] == [1, 1, 1]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_resumption(tmp_path: Path, authority: trustme.CA, version: ssl.TLSVersion) -> None:
    """A client that comes again with its ticket saves the expensive half of a handshake."""
    context = trusting(authority)
    context.minimum_version = context.maximum_version = version

    def session(old: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with socket.create_connection(("127.0.0.1", house.port), 10) as plain:
            plain.recv(1000)
            plain.sendall(b"EHLO client.sender.example\r\n")
            plain.recv(1000)
            plain.sendall(b"STARTTLS\r\n")
            assert plain.recv(1000).startswith(b"220 ")
            with context.wrap_socket(plain, server_hostname=HOST, session=old) as tls:
                tls.sendall(b"QUIT\r\n")  # the tickets of TLS 1.3 come with the first octets
                assert tls.recv(1000).startswith(b"221 ")
                return tls.session, bool(tls.session_reused)

    async with House(tmp_path, smtp=certified(authority, tmp_path)) as house:
        await opened(house)
        ticket, reused = await asyncio.to_thread(session, None)
        assert not reused
        _, reused = await asyncio.to_thread(session, ticket)
        assert reused


async def test_plaintext_of_any_length_behind_starttls(tmp_path: Path, authority: trustme.CA) -> None:
    """RFC 3207 4.2: what was pipelined behind STARTTLS in clear is discarded, however much it is, and nothing
    of what was said before is known afterwards."""
    async with House(tmp_path, smtp=certified(authority, tmp_path)) as house:
        await opened(house)
        for octets in (b"NOOP\r\n", b"RSET\r\n" * 9_000):
            async with house.client() as client:
                await client.greet()
                await client.send(f"MAIL FROM:<eve@sender.example>\r\nRCPT TO:<{ANN}>\r\n".encode())
                assert (await client.reply(), (await client.reply())[:3]) == ("250 2.1.0 Sender ok", "250")
                await client.send(b"STARTTLS\r\n" + octets)
                assert (await client.reply()).startswith("220 ")
                await client._writer.start_tls(trusting(authority), server_hostname=HOST)
                await client.talk("C: DATA\nS: 503 5.5.1 ...\nC: MAIL FROM:<a@b.example>\nS: 503 5.5.1 ...")
                await client.send(b"EHLO client.sender.example\r\n")
                assert "STARTTLS" not in await client.reply()
                assert (await client.mail(ANN)).startswith("250 ")


async def test_a_broken_handshake_is_no_fault_of_ours() -> None:
    """What ends a connection is known where it ends; the collector must not report it as forgotten, whichever
    it frees first, the connection or the future of its end."""
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    connection = Connection(silence_s=300.0)
    connection.connection_lost(ssl.SSLError("a client that speaks no TLS"))
    del connection.__dict__["_closed"]
    gc.collect()
    assert said == []
