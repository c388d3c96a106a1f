"""MTA-STS policies are fetched from a real HTTPS server, and kept as long as they say (RFC 8461)."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from libs.runtime.config import DialPart
from libs.runtime.dns import Dns
from libs.smtp.sts import AGAIN_S, FETCH_S, FRESH_S, Policies
from libs.smtp.sts_file import NAME, Entry, load, save
from libs.smtp.sts_policy import Mode, read_policy
from tests.helpers.clock import Clock
from tests.helpers.patience import until
from tests.helpers.policy_server import PATH, PolicyServer
from tests.helpers.zone import Zone

DOMAIN, HOST = "office.example", "mta-sts.office.example"
POLICY = "version: STSv1\nmode: enforce\nmx: mx.office.example\nmax_age: 604800\n"
TESTING = POLICY.replace("enforce", "testing")


def announced(id_: str, address: str = "127.0.0.1") -> str:
    return f'_mta-sts.{DOMAIN} TXT "v=STSv1; id={id_};"\n{HOST} A {address}\n'


class Scene(NamedTuple):
    policies: Policies
    server: PolicyServer
    zone: Zone
    clock: Clock
    another: Callable[[], Policies]

    async def mode(self) -> Mode | None:
        policy = await self.policies.of(DOMAIN)
        return None if policy is None else policy.mode


def context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(made)
    return made


@asynccontextmanager
async def scene(folder: Path, *names: str, allow: tuple[str, ...] = ("127.0.0.0/8",)) -> AsyncIterator[Scene]:
    """`names`: in the certificate of the policy server."""
    authority, clock = trustme.CA(), Clock()
    authority.cert_pem.write_to_path(folder / "authorities.pem")
    async with (
        Zone(announced("1")) as zone,
        PolicyServer(context(authority, *names or (HOST,)), POLICY) as server,
    ):
        dns = Dns(zone.servers, clock, 2.0)
        dial = DialPart(allow=allow, policy_port=server.port, authorities=folder / "authorities.pem")
        policies = Policies(dial, dns, clock, folder)
        try:
            yield Scene(policies, server, zone, clock, lambda: Policies(dial, dns, clock, folder))
        finally:
            await policies.close()
            await dns.close()


async def test_fetched_once_and_kept(tmp_path: Path) -> None:
    """Section 3.3: at the well-known place, by name; then it is not asked for again for a day."""
    async with scene(tmp_path) as at:
        found = await asyncio.gather(*(at.policies.of(DOMAIN) for _ in range(5)))
        assert {policy.mx for policy in found if policy} == {("mx.office.example",)}
        at.clock.advance(FRESH_S - 1)
        assert await at.mode() is Mode.ENFORCE
        assert at.server.asked == [(f"{HOST}:{at.server.port}", PATH)]
        at.clock.advance(2)
        at.server.policy = TESTING
        assert await at.mode() is Mode.TESTING
        assert len(at.server.asked) == 2


async def test_another_id_is_another_policy(tmp_path: Path) -> None:
    """Section 3.1: the id says that the policy changed."""
    async with scene(tmp_path) as at:
        assert await at.mode() is Mode.ENFORCE
        at.server.policy = TESTING
        at.zone.set(announced("2"))
        at.clock.advance(2)  # the record's time to live
        assert await at.mode() is Mode.TESTING


@pytest.mark.parametrize(
    "trouble", ["record gone", "DNS away", "server away", "server broken", "now nonsense"]
)
async def test_kept_whatever_fails(tmp_path: Path, trouble: str) -> None:
    """Section 3.3: while max_age lasts the kept policy holds; who stands in between cannot wish it away."""
    async with scene(tmp_path) as at:
        assert await at.mode() is Mode.ENFORCE
        match trouble:
            case "record gone":
                at.zone.set(f"{HOST} A 127.0.0.1")
            case "DNS away":
                at.zone.set(f"_mta-sts.{DOMAIN} !servfail")
            case "server away":
                await at.server.stop()
            case "server broken":
                at.server.status = 503
            case "now nonsense":
                at.server.policy = "<html>"
        at.clock.advance(604_799)
        assert await at.mode() is Mode.ENFORCE
        at.clock.advance(2)
        assert await at.mode() is None


async def test_who_does_not_answer_holds_nobody(tmp_path: Path) -> None:
    """While a policy is in force, mail does not wait for a server that takes the question and is silent."""
    async with scene(tmp_path) as at:
        assert await at.mode() is Mode.ENFORCE
        at.clock.advance(FRESH_S + 1)
        at.server.answering.clear()
        async with asyncio.timeout(FETCH_S / 2):
            assert await at.mode() is Mode.ENFORCE
        at.server.policy = TESTING
        at.server.answering.set()

        async def renewed() -> bool:
            return await at.mode() is Mode.TESTING

        await until(renewed)


async def test_fetched_at_once_and_all_kept(tmp_path: Path) -> None:
    """Policies of many domains that come at the same moment are all in the file for the next process."""
    names = [f"d{number}.example" for number in range(12)]
    hosts = [f"mta-sts.{name}" for name in names]
    records = [
        f'_mta-sts.{name} TXT "v=STSv1; id=1;"\n{host} A 127.0.0.1'
        for name, host in zip(names, hosts, strict=True)
    ]
    async with scene(tmp_path, *hosts) as at:
        at.zone.set("\n".join(records))
        assert None not in await asyncio.gather(*(at.policies.of(name) for name in names))
        assert set(load(tmp_path / NAME, at.clock.wall())) == set(names)


async def test_kept_over_a_restart(tmp_path: Path) -> None:
    """The next process knows it from the file, with DNS and its server away, until it ends."""
    async with scene(tmp_path) as at:
        assert await at.mode() is Mode.ENFORCE
        await at.server.stop()
        at.zone.set("")
        later = at.another()
        assert (policy := await later.of(DOMAIN)) is not None
        assert policy.mx == ("mx.office.example",)
        at.clock.advance(604_801)
        assert await later.of(DOMAIN) is None
        assert await at.another().of(DOMAIN) is None


@pytest.mark.parametrize("octets", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": {"id": "1"}}', b"\xff"])
async def test_a_file_that_is_none(tmp_path: Path, octets: bytes) -> None:
    """What cannot be read is fetched again, and written over."""
    (tmp_path / NAME).write_bytes(octets)
    async with scene(tmp_path) as at:
        assert await at.mode() is Mode.ENFORCE
        await at.server.stop()
        assert await at.another().of(DOMAIN) is not None


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It holds as long as the process."""
    wall = 1_800_000_000.0
    entry = Entry("1", read_policy(POLICY.encode()), wall + 60, wall + 30)
    save(tmp_path / "nowhere" / NAME, {DOMAIN: entry}, wall)
    assert load(tmp_path / "nowhere" / NAME, wall) == {}


def test_two_processes_share_the_file(tmp_path: Path) -> None:
    """Each keeps what the other wrote; what has ended goes."""
    wall, path = 1_800_000_000.0, tmp_path / NAME
    entries = {
        name: Entry("1", read_policy(POLICY.encode()), wall + age, wall)
        for name, age in (("a", 5), ("b", 60))
    }
    for name, entry in entries.items():
        save(path, {name: entry}, wall)
    assert load(path, wall) == entries
    save(path, {"c": entries["b"]}, wall + 10)
    assert set(load(path, wall + 10)) == {"b", "c"}
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


async def test_after_a_failure_it_is_left_alone_for_a_while(tmp_path: Path) -> None:
    """Section 3.3: not more often than every five minutes; a new id is tried at once."""
    async with scene(tmp_path) as at:
        at.server.status = 500
        for _ in range(3):
            assert await at.mode() is None
        assert len(at.server.asked) == 1
        at.server.status = 200
        at.clock.advance(AGAIN_S - 1)
        assert await at.mode() is None
        at.clock.advance(2)
        assert await at.mode() is Mode.ENFORCE
        at.server.status = 500
        at.zone.set(announced("2"))
        at.clock.advance(2)
        assert await at.mode() is Mode.ENFORCE  # the old one
        at.zone.set(announced("3"))
        at.server.status, at.server.policy = 200, TESTING
        at.clock.advance(2)
        assert await at.mode() is Mode.TESTING


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (301, {"location": "/elsewhere", "content-type": "text/plain"}),
        (404, {"content-type": "text/plain"}),
        (204, {"content-type": "text/plain"}),
        (200, {"content-type": "text/html"}),
        (200, {"content-type": ""}),
    ],
)
async def test_what_is_no_policy(tmp_path: Path, status: int, headers: dict[str, str]) -> None:
    """Section 3.3: no redirects, 200 alone; section 3.2: plain text."""
    async with scene(tmp_path) as at:
        at.server.status, at.server.headers = status, headers
        assert await at.mode() is None
        assert len(at.server.asked) == 1


async def test_a_parameter_of_the_content_type(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        at.server.headers = {"content-type": "Text/Plain; charset=utf-8"}
        assert await at.mode() is Mode.ENFORCE


async def test_too_large(tmp_path: Path) -> None:
    """Section 3.2: 64 KiB are read, and no more."""
    async with scene(tmp_path) as at:
        at.server.policy = POLICY + "x: " + "y" * 10_000_000 + "\n"
        assert await at.mode() is None


async def test_a_certificate_for_somebody_else(tmp_path: Path) -> None:
    """Section 3.3: it must be for mta-sts. + domain."""
    async with scene(tmp_path, "www.office.example") as at:
        assert await at.mode() is None
        assert at.server.asked == []


async def test_a_certificate_of_nobody(tmp_path: Path) -> None:
    """Section 3.3: by an authority that we trust."""
    async with scene(tmp_path) as at:
        at.server.context = context(trustme.CA(), HOST)
        await at.server.stop()
        await at.server.start()
        assert await at.mode() is None
        assert at.server.asked == []


async def test_forbidden_addresses(tmp_path: Path) -> None:
    """A policy server inside somebody's network is not asked, as no mail server there is."""
    async with scene(tmp_path, allow=()) as at:
        assert await at.mode() is None
        assert at.server.asked == []


async def test_nothing_announced(tmp_path: Path) -> None:
    """Section 3.1: without its record nobody asks for a policy."""
    async with scene(tmp_path) as at:
        at.zone.set(f"{HOST} A 127.0.0.1")
        assert await at.mode() is None
        assert at.server.asked == []
