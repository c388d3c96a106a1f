"""What is asked of TLS is had, or nothing is sent: real servers, real certificates, real DNS."""

import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from libs.runtime.clock import SystemClock
from libs.runtime.config import Config, DialPart, HostPart
from libs.runtime.dns import Dns
from libs.smtp.client import Dialer, Fault, Stage
from libs.smtp.demands import Demands
from libs.smtp.lookup import look_up
from libs.smtp.route import Ours
from libs.smtp.tls_policy import ANY, Barred, Need, Tls, known_as
from tests.helpers.primary import Primary
from tests.helpers.zone import Zone
from tests.smtp.certificates import HOST, issued
from tests.smtp.test_client import PATIENT, target
from tests.smtp.test_dane import record

NAMED = Tls(Need.NAMED, "MTA-STS", HOST)


def server(folder: Path, *chain: str) -> ssl.SSLContext:
    """Shows `chain` (names of certificates.issued), its own first."""
    own = issued()[chain[0]]
    path = folder / f"{'-'.join(chain)}.pem"
    path.write_bytes(own.key_pem + b"".join(issued()[each].pem for each in chain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def dialer(folder: Path, primary: Primary) -> Dialer:
    authorities = folder / "authorities.pem"
    authorities.write_bytes(issued()["root"].pem)
    dial = DialPart(port=primary.port, allow=("127.0.0.0/8",), authorities=authorities)
    return Dialer(dial, HostPart(name="mx1.backup.example"), SystemClock(), PATIENT)


async def tried(folder: Path, primary: Primary, tls: Tls) -> str:
    """The protocol that was agreed on, or why there was none."""
    try:
        connection = await dialer(folder, primary).connect(target(primary), tls)
    except Fault as fault:
        known = (fault.stage, fault.reply, fault.reason) == (Stage.STARTTLS, None, "tls")
        return fault.detail if known else str(fault)
    await connection.quit()
    return connection.tls.partition(".")[0] or "in clear"


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        (("leaf", "middle"), "TLSv1"),
        (("leaf",), "MTA-STS: the certificate is not trusted: unable to get local issuer certificate"),
        (("old", "middle"), "MTA-STS: the certificate is not trusted: certificate has expired"),
        (("alone",), "MTA-STS: the certificate is not trusted: self-signed certificate"),
    ],
)
async def test_a_certificate_by_name(tmp_path: Path, chain: Sequence[str], found: str) -> None:
    """RFC 8461 section 4.2: by an authority that we trust, valid, for the MX host; opportunistically any."""
    async with Primary(name=HOST, tls=server(tmp_path, *chain)) as primary:
        assert await tried(tmp_path, primary, NAMED) == found
        assert await tried(tmp_path, primary, ANY) == "TLSv1"
        assert len(primary.visits) == 2  # never a second try in clear


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    """The name that counts is the one that was asked for, wherever the server is found."""
    async with Primary(name="mx.elsewhere.example", tls=server(tmp_path, "leaf", "middle")) as primary:
        refused = await tried(tmp_path, primary, known_as("mx.elsewhere.example"))
        assert refused.startswith("tls_name: the certificate is not trusted: Hostname mismatch")
        assert await tried(tmp_path, primary, known_as(HOST)) == "TLSv1"


@pytest.mark.parametrize("need", [Need.NAMED, Need.ENCRYPTED, Need.DANE])
async def test_never_in_clear_where_tls_must_be(tmp_path: Path, need: Need) -> None:
    """STARTTLS not offered, refused, broken: what stands between us and the server could do each of them."""
    wanted = Tls(need, "X", HOST, (HOST,), (record("3 1 1 leaf"),))
    async with Primary(name=HOST) as primary:
        assert await tried(tmp_path, primary, wanted) == "X: STARTTLS is not offered"
    async with Primary(name=HOST, tls=server(tmp_path, "leaf", "middle")) as primary:
        primary.say("STARTTLS", "454 4.7.0 not now")
        assert await tried(tmp_path, primary, wanted) == "X: STARTTLS: 454 4.7.0 not now"
        primary.say("STARTTLS", "!drop")
        assert (await tried(tmp_path, primary, wanted)).startswith("X: ")
        assert len(primary.visits) == 2
    async with Primary(name=HOST, tls_broken=True) as primary:
        assert (await tried(tmp_path, primary, wanted)).startswith("X: ")
        assert len(primary.visits) == 1
        assert not any("MAIL" in command for command in primary.visits[0].commands)


async def test_falls_silent_behind_tls(tmp_path: Path) -> None:
    """There are servers that only fall after the handshake: no mail in clear for them either."""
    async with Primary(name=HOST, tls=server(tmp_path, "leaf", "middle")) as primary:
        primary.say("EHLO", "!drop", times=1)
        primary.say("EHLO", "250-mx.office.example\n250 STARTTLS", times=1)
        assert (await tried(tmp_path, primary, NAMED)).startswith("MTA-STS: after STARTTLS: ")


async def test_any_certificate_where_encryption_is_all(tmp_path: Path) -> None:
    """RFC 7672 section 2.2: TLSA records that nobody can use."""
    async with Primary(name=HOST, tls=server(tmp_path, "alone")) as primary:
        assert await tried(tmp_path, primary, Tls(Need.ENCRYPTED, "DANE", HOST)) == "TLSv1"


@pytest.mark.parametrize(
    ("text", "chain", "fits"),
    [
        ("3 1 1 leaf", ("leaf",), True),
        ("3 0 2 alone", ("alone",), True),
        ("3 1 1 leaf", ("alone",), False),
        ("2 0 1 root", ("leaf", "middle", "root"), True),
        ("2 1 1 middle", ("leaf", "middle"), True),
        ("2 0 0 root", ("leaf", "middle"), True),
        ("2 1 1 middle", ("old", "middle"), False),
        ("2 0 1 stranger", ("leaf", "middle", "stranger"), False),
    ],
)
async def test_dane(tmp_path: Path, text: str, chain: Sequence[str], fits: bool) -> None:
    """What is shown in a real handshake is what is matched; the authorities of the web play no part."""
    async with Primary(name=HOST, tls=server(tmp_path, *chain)) as primary:
        wanted = Tls(Need.DANE, "DANE", HOST, (HOST, "office.example"), (record(text),))
        found = await tried(tmp_path, primary, wanted)
        assert found == ("TLSv1" if fits else "DANE: the certificate matches no TLSA record")
        assert len(primary.visits) == 1


# --- what DNS says of it ---

SIGNED = """
office.example     MX 10 mx.office.example
mx.office.example  A 192.0.2.1
"""
LEAF = record("3 1 1 leaf")
TLSA = f"_25._tcp.mx.office.example TLSA 3 1 1 {LEAF.data.hex()}\n"


class Asked(NamedTuple):
    found: Tls | Barred
    questions: list[tuple[str, str]]


@asynccontextmanager
async def asking(zone: Zone) -> AsyncIterator[Dns]:
    dns = Dns(zone.servers, SystemClock(), 1.0)
    try:
        yield dns
    finally:
        await dns.close()


async def demanded(text: str, *, validating: bool = True, dane: bool = True) -> Asked:
    async with Zone(text, validating=validating) as zone, asking(zone) as dns:
        config = Config(
            installation={
                "id": "installation",
                "hosts": ("mx1.backup.example",),
                "operators": "ops@isp.example",
            },
            host={"name": "mx1.backup.example"},
            state_directory="unused",
            dns={"servers": [f"{zone.address}:{zone.port}"]},
            dial={"dane": dane, "mta_sts": False},
        )
        demands = Demands(config, dns, SystemClock())
        route = await look_up(dns, "office.example", Ours((), ()), random.shuffle)
        found = (await demands.of("office.example", route))[HOST]
        return Asked(found, zone.questions)


async def test_tlsa_of_a_signed_host() -> None:
    """RFC 7672 section 2.2: MX, addresses and TLSA, all signed."""
    asked = await demanded(SIGNED + TLSA)
    assert asked.found == Tls(Need.DANE, "DANE", HOST, (HOST, "office.example"), (LEAF,))


@pytest.mark.parametrize(
    "more",
    ["office.example !unsigned MX", "mx.office.example !unsigned A", "_25._tcp.mx.office.example !unsigned"],
)
async def test_what_is_not_signed_promises_nothing(more: str) -> None:
    """RFC 7672 section 2.1: whoever forged one of them could have forged the rest."""
    asked = await demanded(SIGNED + TLSA + more)
    assert asked.found == ANY
    names = [name for name, _ in asked.questions]
    assert ("_25._tcp.mx.office.example" in names) is more.startswith("_25")


async def test_no_validating_resolver_and_switched_off() -> None:
    assert (await demanded(SIGNED + TLSA, validating=False)).found == ANY
    assert (await demanded(SIGNED + TLSA, dane=False)).found == ANY


async def test_no_records() -> None:
    assert (await demanded(SIGNED)).found == ANY


@pytest.mark.parametrize("trouble", ["!servfail", "!timeout"])
async def test_a_tlsa_that_is_withheld(trouble: str) -> None:
    """RFC 7672 section 2.1.2: the host is not dialled, else withholding the record would be enough."""
    asked = await demanded(f"{SIGNED}_25._tcp.mx.office.example {trouble}")
    assert asked.found == Barred("DANE: no TLSA answer")


async def test_records_that_nobody_can_use() -> None:
    asked = await demanded(f"{SIGNED}_25._tcp.mx.office.example TLSA 1 1 1 {LEAF.data.hex()}")
    assert asked.found == Tls(Need.ENCRYPTED, "DANE", HOST)
