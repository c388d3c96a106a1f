"""A proxied port on the running service: what a dialogue in a file cannot show."""

from pathlib import Path

import trustme

from libs.mail.event import EventType
from libs.mail.knowledge import RecipientStatus, Status
from libs.mail.records import Domain
from tests.helpers.patience import until
from tests.ingest.house import HOST, House
from tests.ingest.test_service import certified, trusting

ANN = "ann@office.example"
PROXIES = ("127.0.0.0/8",)


def said(client: str, family: str = "TCP4") -> bytes:
    """A header of version 1."""
    to = "192.0.2.1" if family == "TCP4" else "2001:db8::1"
    return f"PROXY {family} {client} {to} 4711 25\r\n".encode()


async def opened(house: House) -> House:
    """With office.example and ann, ready."""
    await house.install(Domain("office.example", 1.0, active_since=2.0))
    ann = RecipientStatus(ANN, Status.DELIVERABLE, 1.0, 1.0)
    await house.put("recipients", "office.example", ANN, ann)
    return await house.start()


def refused(house: House, reason: str) -> float:
    value = house.metrics.registry.get_sample_value("backupmx_proxy_refused_total", {"reason": reason})
    return value or 0.0


async def test_the_client_is_known_everywhere(tmp_path: Path) -> None:
    """Whom the proxy names is the client in the trace for SPF, in Received, in the queue and in events, also
    after STARTTLS, which makes the session forget all it heard in clear."""
    authority = trustme.CA()
    async with House(tmp_path, proxies=PROXIES, smtp=certified(authority, tmp_path)) as house:
        await opened(house)
        async with house.client(early=said("2001:db8:9::7", "TCP6")) as client:
            await client.greet()
            await client.start_tls(trusting(authority), HOST)
            await client.send(b"EHLO client.sender.example\r\n")
            await client.reply()
            assert (await client.mail("nobody@nowhere")).startswith("550 5.7.1")
            assert (await client.mail(ANN)).startswith("250 ")
        [queued] = await house.queued()
        [(trace, _)] = house.judged
        await until(lambda: len(house.events) == 2)
        assert b"([IPv6:2001:db8:9::7])" in queued.mail.prepend
        assert {queued.mail.client, trace.client, *(each.peer_address for each in house.events)} == {
            "2001:db8:9::7"
        }
        assert {each.type for each in house.events} == {EventType.REJECTION, EventType.RECEPTION}


async def test_limits_are_those_of_the_client(tmp_path: Path) -> None:
    """Connections are counted for whom the proxy names, not for the proxy."""
    async with House(tmp_path, proxies=PROXIES, smtp={"max_connections_per_client": 1}) as house:
        await opened(house)
        async with (
            house.client(early=said("203.0.113.7")) as one,
            house.client(early=said("203.0.113.8")) as other,
            house.client(early=said("203.0.113.7")) as third,
        ):
            assert (await one.reply()).startswith("220 ")
            assert (await other.reply()).startswith("220 ")
            await third.talk("S: 421 4.7.0 ...\nS.")


async def test_a_header_in_pieces(tmp_path: Path) -> None:
    """A header may come octet by octet; what comes with its last octet is an early talker's."""
    async with House(tmp_path, proxies=PROXIES) as house:
        await opened(house)
        async with house.client() as client:
            for octet in said("203.0.113.7"):
                await client.send(bytes([octet]))
            await client.talk("S: 220 ...\nC: QUIT\nS: 221 ...\nS.")


async def test_a_slow_header(tmp_path: Path) -> None:
    """A header that is not whole in time ends the connection, also when octets keep coming."""
    async with House(tmp_path, proxies=PROXIES, smtp={"proxy_timeout_s": 0.2}) as house:
        await opened(house)
        async with house.client() as silent, house.client() as drip:
            for octet in said("203.0.113.7")[:-1]:
                await drip.send(bytes([octet]))
            await silent.talk("S.")
            await drip.talk("S.")
        assert refused(house, "timeout") == 2


async def test_a_proxy_that_goes(tmp_path: Path) -> None:
    """A proxy that looks whether the port is open and closes it leaves a number and no session."""
    async with House(tmp_path, proxies=PROXIES) as house:
        await opened(house)
        async with house.client():
            pass
        await until(lambda: refused(house, "closed") == 1)
        assert house.metrics.registry.get_sample_value("backupmx_sessions_total") == 0
        assert house.metrics.session_errors._value.get() == 0
