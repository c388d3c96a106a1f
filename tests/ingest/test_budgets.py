"""What strangers may learn within an hour: budgets that outlive a connection, in bounded memory."""

from pathlib import Path

import pytest

from libs.mail import replies
from libs.mail.address import Mailbox, mailbox
from libs.mail.knowledge import Health, PrimaryState, RecipientStatus, RecipientTry, Status
from libs.mail.records import Basis, Domain
from services.ingest.budgets import Allowance, Budgets, Suspicions
from services.ingest.connections import Peer
from services.ingest.facts import Accept
from services.ingest.limits import Load
from tests.ingest.house import House

EVE, ANN = Peer("192.0.2.7", "192.0.2.7"), mailbox("ann@office.example")
MONITOR = Peer("192.0.2.8", "192.0.2.8", exempt=True)
OFFICE = Domain("office.example", 1.0, active_since=2.0)
FREE = Load()


def unverified(to: Mailbox) -> Accept:
    return Accept(to.domain, to.domain, str(to), Basis.SUSPICION, "suspicion")


def nobody(number: int) -> Mailbox:
    return Mailbox(f"nobody{number}", "office.example")


def test_suspicions_are_counted_by_recipient_and_given_back_after_an_hour() -> None:
    """20 different recipients a client, 500 a domain; the same one again costs nothing."""
    suspicions = Suspicions(20, 500)
    for number in range(20):
        assert not suspicions.spent("a", "d", str(number), 0.0)
        suspicions.count("a", "d", str(number), 0.0)
    assert suspicions.spent("a", "d", "new", 0.0)
    assert not suspicions.spent("a", "d", "7", 0.0)
    assert not suspicions.spent("b", "d", "new", 0.0)
    for number in range(500):
        suspicions.count(f"c{number}", "d", f"m{number}", 0.0)
    assert suspicions.spent("z", "d", "new", 10.0)
    assert not suspicions.spent("z", "e", "new", 10.0)
    assert not suspicions.spent("a", "d", "new", 3600.0)
    assert not suspicions.spent("", "e", "new", 10.0)  # nobody's budget: the domain's alone


def test_suspicions_have_bounded_memory() -> None:
    """Above the room no further recipient is accepted on suspicion in this hour; those accepted stay so."""
    suspicions = Suspicions(20, 500, room=100)
    for number in range(1000):
        if not suspicions.spent(f"c{number}", f"d{number}", f"m{number}", 0.0):
            suspicions.count(f"c{number}", f"d{number}", f"m{number}", 0.0)
    assert len(suspicions._clients) == len(suspicions._domains) == 50
    assert not suspicions.spent("c3", "d3", "m3", 0.0)
    assert suspicions.spent("c3", "d3", "m4", 0.0)
    assert not suspicions.spent("c3", "d3", "m4", 3600.0)


def test_a_client_is_told_of_so_many_unknown_recipients_an_hour() -> None:
    """Every 550 5.1.1 costs one, nothing else does; the budget comes back evenly."""
    budgets = Budgets(Allowance(3, 20, 500))
    for number in range(3):
        assert budgets.load(FREE, nobody(number), EVE, 0.0) == FREE
        budgets.count(replies.UNKNOWN_RECIPIENT, nobody(number), EVE, 0.0)
        budgets.count(replies.RELAYING_DENIED, nobody(number), EVE, 0.0)
    assert budgets.load(FREE, nobody(9), EVE, 0.0) == Load(harvesting=True)
    assert budgets.load(FREE, nobody(9), EVE._replace(network="192.0.2.9"), 0.0) == FREE
    assert budgets.load(FREE, nobody(9), EVE, 1199.0).harvesting
    assert not budgets.load(FREE, nobody(9), EVE, 1200.0).harvesting


def test_who_is_exempt_has_no_budget_but_the_domain_has() -> None:
    """Our own monitoring may ask for whom it likes; what a domain takes on suspicion is everybody's."""
    budgets = Budgets(Allowance(1, 2, 5))
    for number in range(5):
        budgets.count(replies.UNKNOWN_RECIPIENT, nobody(number), MONITOR, 0.0)
        assert budgets.load(FREE, nobody(number), MONITOR, 0.0) == FREE
        budgets.count(unverified(nobody(number)), nobody(number), MONITOR, 0.0)
    assert budgets.load(FREE, nobody(9), MONITOR, 0.0) == Load(suspicious=True)


ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.7
                         AAAA 2001:db8::7
    old.office.example   A 127.0.0.9
"""
LITTLE = {"max_unknown_per_client": 2, "max_unverified_per_client": 2, "exempt_networks": []}


async def furnished(house: House) -> None:
    await house.install(OFFICE)
    now = house.clock.wall()
    known = RecipientStatus(str(ANN), Status.DELIVERABLE, now, now)
    await house.put("recipients", "office.example", ANN.key, known)
    for number in range(9):
        gone = RecipientStatus(str(nobody(number)), Status.UNDELIVERABLE, now, now)
        await house.put("recipients", "office.example", nobody(number).key, gone)
    state = PrimaryState("office.example", Health.UP, now, mx=("old.office.example",))
    await house.put("primaries", "office.example", "office.example", state)
    await house.start()


async def answers(house: House, *recipients: object, source: str) -> list[str]:
    """The codes of a transaction with these recipients, up to the end of the connection."""
    found = []
    async with house.client(source=source) as client:
        await client.greet()
        await client.send(b"MAIL FROM:<eve@sender.example>\r\n")
        assert (await client.reply()).startswith("250")
        for each in recipients:
            await client.send(f"RCPT TO:<{each}>\r\n".encode())
            found.append((await client.reply())[:9])
            if found[-1].startswith("421"):
                assert await client.line() is None
                break
    return found


async def test_harvesting_ends_and_reconnecting_does_not_help(tmp_path: Path) -> None:
    """421 4.7.0 for the next unknown recipient, on every new connection; a known one is never touched,
    another client does not notice, and nobody is asked on behalf of who has spent its budget."""
    async with House(tmp_path, zone=ZONE, smtp=LITTLE) as house:
        await furnished(house)
        unknown = [nobody(number) for number in range(9)]
        assert await answers(house, *unknown, source="127.0.0.1") == ["550 5.1.1"] * 2 + ["421 4.7.0"]
        assert await answers(house, unknown[7], source="127.0.0.1") == ["421 4.7.0"]
        assert await answers(house, "new@office.example", source="127.0.0.1") == ["421 4.7.0"]
        assert await answers(house, ANN, unknown[8], ANN, source="127.0.0.1") == [
            "250 2.1.5",
            "451 4.7.0",
            "250 2.1.5",
        ]
        assert await answers(house, unknown[7], source="127.0.0.2") == ["550 5.1.1"]
        assert house.asked == []
        limited = house.metrics.registry.get_sample_value
        assert limited("backupmx_limited_total", {"limit": "unknown_recipients"}) == 4


async def test_no_more_is_asked_ahead_than_the_budget_has_room_for(tmp_path: Path) -> None:
    """A hundred recipients sent in one write ask the primary no more than one after the other would."""
    async with House(tmp_path, zone=ZONE, smtp=LITTLE | {"max_unknown_per_client": 5}) as house:
        await furnished(house)
        async with house.client(source="127.0.0.1") as client:
            await client.greet()
            lines = "".join(f"RCPT TO:<new{number}@office.example>\r\n" for number in range(100))
            await client.send(f"MAIL FROM:<eve@sender.example>\r\n{lines}".encode())
            for _ in range(3):
                assert (await client.reply())[:3] in ("250", "451")
        assert 3 <= len(house.asked) <= 8


@pytest.mark.parametrize("source", ["127.0.0.7", "127.0.0.9"])
async def test_the_primarys_own_address_has_no_budget(tmp_path: Path, source: str) -> None:
    """A primary, by its MX records of now or by those that last worked, hears the truth about its domain."""
    async with House(tmp_path, zone=ZONE, smtp=LITTLE) as house:
        await furnished(house)
        unknown = [nobody(number) for number in range(9)]
        assert await answers(house, *unknown, source=source) == ["550 5.1.1"] * 9
        assert await answers(house, *unknown, source="127.0.0.8") == ["550 5.1.1"] * 2 + ["421 4.7.0"]


async def test_the_primarys_own_address_may_be_unverified(tmp_path: Path) -> None:
    """Its recipients that cannot be verified are taken beyond what a stranger's are."""
    async with House(tmp_path, zone=ZONE, smtp=LITTLE) as house:
        await furnished(house)
        now, new = house.clock.wall(), [f"new{number}@office.example" for number in range(6)]
        house.answers = {name: [(f"try:{name}", RecipientTry(name, now, "connect"))] for name in new}
        assert await answers(house, *new[:3], source="127.0.0.8") == ["250 2.1.5"] * 2 + ["451 4.7.1"]
        assert await answers(house, *new, source="127.0.0.7") == ["250 2.1.5"] * 6


async def test_the_domains_own_budget_is_everybodys(tmp_path: Path) -> None:
    """What a domain takes on suspicion is bounded for its primary, too: 451, and no endless asking."""
    smtp = LITTLE | {"max_unverified_per_domain": 3}
    async with House(tmp_path, zone=ZONE, smtp=smtp) as house:
        await furnished(house)
        now, new = house.clock.wall(), [f"new{number}@office.example" for number in range(6)]
        house.answers = {name: [(f"try:{name}", RecipientTry(name, now, "connect"))] for name in new[:5]}
        said = await answers(house, *new, source="127.0.0.7")
        assert said == ["250 2.1.5"] * 3 + ["451 4.7.1"] * 3
