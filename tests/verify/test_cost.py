"""Nothing that a sender writes, in his mail or in his DNS, makes one mail cost more than two seconds of CPU.

Each case is a mail made for the purpose, with the records that it needs, through the real resolver, the
evaluation and the pool. What it costs is what this process and the pool's have used for it.
"""

import asyncio
import re
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.mail.records import Trace, Verdict
from libs.runtime.dns import Dns
from services.verify.arc import INSTANCES
from services.verify.authenticate import Authenticator
from services.verify.canonical import Body
from services.verify.content import Assembled
from services.verify.dkim import HEAD_OCTETS, SIGNATURES
from services.verify.heavy import Pool
from services.verify.spill import Spill
from tests.helpers.clock import Clock
from tests.helpers.zone import Zone
from tests.verify import sign
from tests.verify.test_arc import rsa, sealed

CPU_S = 2.0
MOST = 50 * 2**20  # octets of a mail that is taken
ADDRESSES = 120  # of one host, about as many as are read
AUTHOR = b"From: <bob@sender.example>\r\n"


class Attack(NamedTuple):
    """`results`: what must come of it, of the methods that the case is about."""

    message: bytes
    zone: str
    results: dict[str, str]
    sender: str = "bob@sender.example"
    helo: str = "mail.sender.example"


def text(record: str) -> str:
    """As strings of a TXT record."""
    return " ".join(f'"{record[at : at + 250]}"' for at in range(0, len(record), 250))


def large_key(exponent: int = 2**32 - 1) -> str:
    public = RSAPublicNumbers(exponent, 2**8192 - 159).public_key()
    return "p=" + b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def der(tag: int, octets: bytes) -> bytes:
    return bytes((tag, 0x82)) + len(octets).to_bytes(2) + octets


def foreign_key(number: int) -> str:
    """Diffie-Hellman, whose parameters take long to look at: PKCS #3 section 9 in RFC 5280 section 4.1."""
    modulus, share = (2**8192 - 45).to_bytes(1025), (2**8191 + number).to_bytes(1025)
    kind = bytes.fromhex("06092a864886f70d010301")
    parameters = der(0x30, der(2, modulus) + b"\2\1\2")
    key = der(0x30, der(0x30, kind + parameters) + der(3, b"\0" + der(2, share)))
    return "p=" + b64encode(key).decode()


def signature(body: bytes, number: int, form: str, names: str) -> bytes:
    """One whose body is right, and which only the key can refute."""
    digest, wrong = b64encode(Body(body).hashed(form)[0]).decode(), b64encode(b"\1" * 1024).decode()
    tags = f"v=1; a=rsa-sha256; c={form}/{form}; d=sender.example; s=k{number}; h={names}; bh={digest}"
    return f"DKIM-Signature: {tags}; b={wrong}\r\n".encode()


def signed(fields: bytes, body: bytes, names: str = "from") -> bytes:
    """With as many signatures as are looked at, in both forms."""
    forms = ("simple", "relaxed")
    top = b"".join(signature(body, n, forms[n % 2], names) for n in range(SIGNATURES))
    return top + fields + b"\r\n" + body


KEYS = "\n".join(f"k{n}._domainkey.sender.example TXT {text(large_key())}" for n in range(SIGNATURES))


def large_keys() -> Attack:
    """The largest keys, eight of them at each name, for each signature."""
    keys = "\n".join(
        f"k{n}._domainkey.sender.example TXT {text(large_key(2**31 + 2 * other + 1))}"
        for n in range(SIGNATURES)
        for other in range(8)
    )
    return Attack(signed(AUTHOR, b"hello\r\n"), keys, {"dkim": "fail"})


def junk_keys() -> Attack:
    """Key records that are as long as DNS can carry, and mean nothing."""
    junk = text("v=DKIM1;" + ";".join(f"t{n}=x" for n in range(7000)))
    keys = "\n".join(f"k{n}._domainkey.sender.example TXT {junk}" for n in range(SIGNATURES))
    return Attack(signed(AUTHOR, b"hello\r\n"), keys, {"dkim": "permerror"})


def keys_of_another_kind() -> Attack:
    """Eight keys that are no RSA keys at each name, for each signature."""
    keys = "\n".join(
        f"k{number % SIGNATURES}._domainkey.sender.example TXT {text(foreign_key(number))}"
        for number in range(8 * SIGNATURES)
    )
    return Attack(signed(AUTHOR, b"hello\r\n"), keys, {"dkim": "permerror"})


def fields_without_end() -> Attack:
    """All the header that is looked at, folded at every octet, and signed under each name again and again."""
    fields = AUTHOR + b"".join(b"X%d:" % n + b"\r\n a" * 8 + b"\r\n" for n in range(480))
    names = "from:" + ":".join(f"x{n % 480}" for n in range(600))
    room = HEAD_OCTETS - len(signed(fields, b"", names)) - 100
    fields += b"X:" + b"\r\n \t" * (room // 4) + b"\r\n"
    return Attack(signed(fields, b"hello\r\n", names), KEYS, {"dkim": "fail"})


def blanks() -> Attack:
    """A body as large as may be, of blanks in runs."""
    body = (b" \t" * 300 + b"a" + b" " * 398 + b"\r\n") * (MOST // 1001)
    return Attack(signed(AUTHOR, body), KEYS, {"dkim": "fail"})


def empty_lines() -> Attack:
    """A body as large as may be, of empty lines and of line ends that are none."""
    body = b"a\r\n" + b"\r\n" * (MOST // 4) + b"\r\r\n" * (MOST // 8)
    return Attack(signed(AUTHOR, body), KEYS, {"dkim": "fail"})


def chain() -> Attack:
    """Fifty seals that hold."""
    message = sealed(sign.MESSAGE, *[rsa()] * INSTANCES)
    key = (sign.KEYS / "rsa2048.txt").read_text().strip()
    return Attack(message, f"rsa2048._domainkey.backup.example TXT {text(key)}", {"arc": "pass"})


def results_of_quotes() -> Attack:
    """A seal that holds, over results full of signs that open and do not end."""
    results = b'Authentication-Results: a.example; dmarc=pass "' + b'\\"' * 60_000 + b"\r\n"
    key = (sign.KEYS / "rsa2048.txt").read_text().strip()
    message = sealed(sign.MESSAGE, rsa(), results=results)
    return Attack(message, f"rsa2048._domainkey.backup.example TXT {text(key)}", {"arc": "pass"})


def authors() -> Attack:
    """A From field as long as is read, and a header full of others."""
    many = (
        b"From: " + b", ".join(b'"(a" (b(c)) <x%d@a.b.c.d.e.f.g.example>' % n for n in range(190)) + b"\r\n"
    )
    return Attack(many + b"Subject: x\r\n\r\nhello\r\n", "", {"dmarc": "none"})


def from_fields() -> Attack:
    """Nothing but From fields."""
    return Attack(AUTHOR * 4000 + b"\r\nhello\r\n", "", {"dmarc": "permerror"})


def results_without_end() -> Attack:
    """Nothing but a header, of results of strangers and fields between them."""
    pair = b"Authentication-Results:\r\nA:\r\n"
    return Attack(AUTHOR + pair * (MOST // len(pair)), "", {"dmarc": "permerror"})


def macros() -> Attack:
    """SPF: names made of macros, each over a long local part, as many as are followed."""
    local = ".".join("a" for _ in range(32))
    spec = "%{l1r.}%{lr.}%{s1r-}%{d2}%{i}%{v}%{h}" * 11
    record = "v=spf1 " + " ".join(f"exists:{spec}.n{n}.sender.example" for n in range(10)) + " -all"
    return Attack(
        AUTHOR + b"\r\n", f"sender.example TXT {text(record)}", {}, sender=f"{local}@sender.example"
    )


def names_of_the_client() -> Attack:
    """SPF: as many names of ten hosts of many addresses as there is room for, each to be validated."""
    spec = "%{p}" * 115
    record = "v=spf1 " + " ".join(f"exists:{spec}.n{n}.sender.example" for n in range(8)) + " -all"
    zone = [f"sender.example TXT {text(record)}"]
    for host in range(10):
        zone.append(f"1.2.0.192.in-addr.arpa PTR h{host}.sender.example")
        zone += [f"h{host}.sender.example A 198.51.100.{k}" for k in range(ADDRESSES - 1)]
        zone.append(f"h{host}.sender.example A 192.0.2.1")
    return Attack(AUTHOR + b"\r\n", "\n".join(zone), {"spf": "permerror"}, helo="sender.example")


def terms() -> Attack:
    """SPF: records as long as DNS can carry, each including the next."""
    bulk = " ".join(f"ip4:198.51.100.{n}" for n in range(215))
    zone = ['sender.example TXT "v=spf1 include:n0.sender.example -all"']
    zone += [
        f"n{n}.sender.example TXT {text(f'v=spf1 {bulk} include:n{n + 1}.sender.example -all')}"
        for n in range(9)
    ]
    return Attack(AUTHOR + b"\r\n", "\n".join(zone), {}, helo="sender.example")


def hosts(addresses: int = ADDRESSES) -> Attack:
    """SPF: ten times ten hosts of as many addresses as are read."""
    lines = [f'sender.example TXT "v=spf1 {" ".join(f"mx:m{n}.sender.example" for n in range(10))} -all"']
    for n in range(10):
        for host in range(10):
            lines.append(f"m{n}.sender.example MX 10 h{host}.m{n}.sender.example")
            lines += [f"h{host}.m{n}.sender.example A 198.51.{k // 256}.{k % 256}" for k in range(addresses)]
    return Attack(AUTHOR + b"\r\n", "\n".join(lines), {}, helo="sender.example")


def hosts_of_many_addresses() -> Attack:
    """SPF: the same with more than are read."""
    return hosts(400)


ATTACKS = (
    large_keys,
    junk_keys,
    keys_of_another_kind,
    fields_without_end,
    blanks,
    empty_lines,
    chain,
    results_of_quotes,
    authors,
    from_fields,
    results_without_end,
    macros,
    names_of_the_client,
    terms,
    hosts,
    hosts_of_many_addresses,
)


class Room:
    """What verifies in `services/verify/service.py`; the pool's process has begun."""

    def __init__(self, zone: Zone, folder: Path) -> None:
        self.dns, self.pool, self.spill = Dns(zone.servers, Clock(), 20), Pool(), Spill(folder)
        self._authenticator = Authenticator(
            self.dns, Clock(), self.pool, authserv_id="mx1.backup.example", hosts=[], within_s=60
        )

    async def verdict(self, attack: Attack) -> Verdict:
        trace = Trace(1, "office.example", "192.0.2.1", attack.helo, attack.sender)
        chunk = 960_000
        parts = tuple(attack.message[at : at + chunk] for at in range(0, len(attack.message), chunk))
        return await self._authenticator.verdict("id1", trace, Assembled(parts, self.spill))

    def used_s(self) -> float:
        """CPU of this thread and of the pool's process, so far."""
        children = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
        return time.thread_time() + sum(each.user + each.system for each in children)


@contextmanager
def elsewhere(text: str) -> Iterator[Zone]:
    """A zone in a thread of its own: what it costs is not ours."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    zone = Zone(text)
    asyncio.run_coroutine_threadsafe(zone.start(), loop).result()
    try:
        yield zone
    finally:
        asyncio.run_coroutine_threadsafe(zone.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def room(zone: str, folder: Path) -> AsyncIterator[Room]:
    with elsewhere(zone) as server:
        made = Room(server, folder)
        try:
            await made.pool.run(time.time)
            yield made
        finally:
            await made.dns.close()
            await made.pool.close()
            made.spill.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_no_mail_costs_more_than_two_seconds(attack: Callable[[], Attack], tmp_path: Path) -> None:
    """CPU as measured, whatever else the machine does; by a mail that is evaluated to its end."""
    made = attack()
    async with room(made.zone, tmp_path) as here:
        before = here.used_s()
        verdict = await here.verdict(made)
        cost_s = here.used_s() - before
    assert made.results.items() <= verdict.results.items()
    assert cost_s < CPU_S


@pytest.mark.parametrize("attack", [blanks, empty_lines], ids=lambda attack: attack.__name__)
async def test_a_large_mail_is_in_memory_once(attack: Callable[[], Attack], tmp_path: Path) -> None:
    """Where it is verified no copy of it is made, in whatever forms it was signed."""
    made = attack()
    async with room(made.zone, tmp_path) as here:
        before = peak(here)
        assert (await here.verdict(made)).results["dkim"] == "fail"
        assert peak(here) - before < 1.6 * MOST


def peak(here: Room) -> int:
    """Octets that the pool's process has had at most."""
    [process] = here.pool._executor._processes.values()  # type: ignore[union-attr]
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0]) * 1024
