"""What one mail may ask DNS, whoever wrote its names: so much at a time, so much in all. An honest mail has
no round of questions more than it needs."""

import asyncio

from libs.mail.records import Trace
from libs.runtime.dns import Dns
from services.verify.authenticate import Authenticator
from services.verify.content import Assembled
from services.verify.heavy import Pool
from services.verify.spill import Spill
from tests.helpers.clock import Clock
from tests.helpers.patience import until
from tests.helpers.zone import Question, Zone
from tests.verify import sign

AT_A_TIME, IN_ALL = 20, 200
SIGNATURE = "DKIM-Signature: v=1; a=rsa-sha256; d=evil.test; s=k{}; h=from; bh=eA==; b=eA=="
DEEP = ".a.b.c.d.e.f.evil.test"


async def rounds(zone: Zone, message: bytes, sender: str, helo: str) -> list[list[Question]]:
    """What is asked for a mail, in rounds: nothing is answered before all is asked that can be."""
    dns, pool = Dns(zone.servers, Clock(), 30), Pool()
    authenticator = Authenticator(dns, Clock(), pool, authserv_id="mx1.backup.example", hosts=[], within_s=60)
    trace = Trace(1, "office.example", "192.0.2.1", helo, sender)
    zone.holds, found = True, list[list[Question]]()
    task = asyncio.create_task(authenticator.verdict("id1", trace, Assembled((message,), Spill(None))))
    while not task.done():
        await until(lambda: task.done() or (zone.held and len(zone.held) == len(dns._flying)))
        if zone.held:
            found.append(sorted(zone.questions[-len(zone.held) :]))
            zone.release()
    await task
    await dns.close()
    await pool.close()
    return found


def bomb(name: str) -> str:
    """A record of ten terms, each of ten hosts."""
    lines = [f'{name} TXT "v=spf1 {" ".join(f"mx:m{n}.{name}" for n in range(9))} -all"']
    lines += [f"m{n}.{name} MX 10 h{host}.m{n}.{name}" for n in range(9) for host in range(10)]
    lines += [f"h{host}.m{n}.{name} A 198.51.100.1" for n in range(9) for host in range(10)]
    return "\n".join(lines)


async def test_a_bomb_has_a_bounded_number_of_questions() -> None:
    """Eight signatures and a chain of as many keys as are taken, eight authors deep in DNS, two SPF records
    of ten times ten hosts: twenty questions at a time at most, and not one for each host."""
    chain = [f"arc rsa1024 i={n} d=evil.test s=a{n} over=" for n in range(1, 17)]
    authors = ", ".join(f"x@v{n}{DEEP}" for n in range(8))
    recipe = [f"author {authors}", *chain, *(f"field {SIGNATURE.format(n)}" for n in range(8))]
    async with Zone(bomb("from.test") + "\n" + bomb("helo.test")) as zone:
        found = await rounds(zone, sign.made(recipe), "bob@from.test", "helo.test")
    most = max(len(asked) for asked in found)
    assert 16 <= most <= AT_A_TIME
    assert 100 <= len({each for asked in found for each in asked}) <= IN_ALL


async def test_a_chain_of_many_keys_asks_for_none() -> None:
    """Of a chain that has more keys than are looked at no key is of use."""
    chain = [f"arc rsa1024 i={n} d=evil.test s=a{n} over=" for n in range(1, 18)]
    async with Zone() as zone:
        await rounds(zone, sign.made(chain), "", "helo.test")
        assert not [name for name, _ in zone.questions if "_domainkey" in name]


HONEST = """
sender.example            TXT "v=spf1 mx include:spf.host.example -all"
sender.example            MX 10 mx1.sender.example
sender.example            MX 10 mx2.sender.example
sender.example            MX 20 mx3.sender.example
mail.host.example         TXT "v=spf1 a -all"
mail.host.example         A 192.0.2.1
_dmarc.sender.example     TXT "v=DMARC1; p=reject"
"""


async def test_an_honest_mail_waits_for_nothing_but_its_answers() -> None:
    """Three signatures, a chain of two and both identities: all that is known at first is asked at once, and
    so are all hosts of an MX."""
    recipe = [
        "arc rsa1024 i=1 d=list.example s=one",
        "arc rsa1024 i=2 d=host.example s=two",
        *(f"sign rsa1024 d={domain} s=s" for domain in ("sender.example", "host.example", "tracker.example")),
    ]
    async with Zone(HONEST) as zone:
        found = await rounds(zone, sign.made(recipe), "bob@sender.example", "mail.host.example")
    assert found[0] == sorted(
        [
            *((f"s._domainkey.{name}.example", "TXT") for name in ("host", "sender", "tracker")),
            ("one._domainkey.list.example", "TXT"),
            ("two._domainkey.host.example", "TXT"),
            ("sender.example", "TXT"),
            ("mail.host.example", "TXT"),
            ("_dmarc.sender.example", "TXT"),
        ]
    )
    assert [(f"mx{n}.sender.example", "A") for n in (1, 2, 3)] in found


async def test_authors_with_slow_dns_save_nobody() -> None:
    """Seven authors whose DNS is silent stand before the one whose domain wishes reject: its wish is found in
    the time there is."""
    authors = ", ".join([*(f"x@v{n}{DEEP}" for n in range(7)), "ann@victim.example"])
    slow = "\n".join(f"_dmarc.v{n}{DEEP} !timeout" for n in range(7))
    async with Zone(f'{slow}\n_dmarc.victim.example TXT "v=DMARC1; p=reject"') as zone:
        dns, clock, pool = Dns(zone.servers, Clock(), 1.0), Clock(), Pool()
        authenticator = Authenticator(
            dns, clock, pool, authserv_id="mx1.backup.example", hosts=[], within_s=3
        )
        trace = Trace(1, "office.example", "192.0.2.1", "helo.test", "bob@from.test")
        message = Assembled((sign.made([f"author {authors}"]),), Spill(None))
        verdict = await authenticator.verdict("id1", trace, message)
        await dns.close()
        await pool.close()
    assert verdict.results["dmarc"] == "fail"
