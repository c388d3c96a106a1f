"""What a person does to mail that waits, with the commands, while real services run: over both logs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.client import Client
from tests.helpers.patience import PATIENCE_S
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    other.example        MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
    sender.example       MX 10 mail.sender.example
                         TXT "v=spf1 ip4:127.0.0.1 -all"
    mail.sender.example  A 127.0.0.4
"""
ANN, BOB, EVA = "ann@office.example", "bob@office.example", "eva@other.example"
LOGS = ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))]


async def states(running: Running, wanted: dict[str, str]) -> dict[str, Any]:
    """The rows of the queue by recipient, once each mail is in this state."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            rows = {}
            for row in (await running.ask("queue", "list", "--json")).rows:
                for each in row["recipients"]:
                    rows[each["address"]] = row
            if {name: row["queue_name"] for name, row in rows.items()} == wanted:
                return rows


def counts(said: Any) -> tuple[int, ...]:
    (row,) = said.rows
    return tuple(row[name] for name in ("changed", "already", "unchanged", "busy"))


@pytest.mark.parametrize("log", LOGS)
async def test_mail_is_held_released_bounced_and_deleted(
    tmp_path: Path, log: str, request: pytest.FixtureRequest
) -> None:
    """By id, domain, sender, recipient and age: each says what it changed; said again it changes nothing."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={ANN, BOB, EVA}) as primary,
        Primary(address="127.0.0.4", port=primary.port) as senders,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, activation="dns", kafka=kafka) as running,
    ):
        for name in ("office.example", "other.example"):
            await running.ask("domain", "add", name)
        async with Client(running.smtp_port) as client:
            await client.greet()
            for mailbox in (ANN, BOB, EVA):
                assert (await client.mail(mailbox)).startswith("250")
            await primary.got(3)
            await primary.down()
            assert (await client.mail(ANN)).startswith("250")
            assert (await client.mail(BOB)).startswith("250")
            assert (await client.mail(EVA)).startswith("250")
        rows = await states(running, dict.fromkeys((ANN, BOB, EVA), "waiting"))
        ann = rows[ANN]["queue_id"]

        said = await running.ask("queue", "hold", ann)
        assert said == (0, f"{ann} is held.\n", "")
        said = await running.ask("queue", "hold", ann)
        assert said == (0, f"mail {ann} is held already.\n", "")
        said = await running.ask("queue", "hold", "--sender", "eve@Sender.Example", "--json")
        assert (said.code, counts(said)) == (0, (2, 0, 0, 0))
        said = await running.ask("queue", "hold", "--sender", "@sender.example")
        assert said == (0, "0 mails are held.\n", "")
        await states(running, dict.fromkeys((ANN, BOB, EVA), "held"))
        said = await running.ask("queue", "release", "--domain", "other.example", "--json")
        assert (counts(said), said.rows[0]["domain"]) == ((1, 0, 0, 0), "other.example")
        said = await running.ask("queue", "release", "--recipient", "@other.example", "--older", "1d")
        assert said == (0, "0 mails are released.\n", "")
        said = await running.ask("queue", "release", rows[EVA]["queue_id"])
        assert (said.code, said.out) == (1, "")
        assert "is not held: it is queued" in said.err
        await states(running, {ANN: "held", BOB: "held", EVA: "waiting"})

        said = await running.ask("queue", "bounce", ann)
        assert said.code == 1
        assert "tell its senders? [y/N]" in said.err
        assert await running.ask("queue", "bounce", ann, "--yes") == (0, f"{ann} is given up.\n", "")
        await senders.got(1)
        assert b"Status: 5.3.0" in senders.received[0].content
        said = await running.ask("queue", "delete", "--recipient", BOB, "--yes")
        assert said == (0, "1 mail is deleted.\n", "")
        await primary.up()
        await running.ask("queue", "flush", "other.example")
        await primary.got(4)
        await states(running, {})
        assert len(primary.received) == 4
        types = [event["type"] for event in (await running.ask("trace", ann, "--json")).rows]
        assert types == ["Reception", "Held", "Bounce"]
        ids = {each.get("request_id") for each in running.events("Held")}
        assert len(ids) == 3  # by id, and of all senders in two partitions


@pytest.mark.parametrize("log", LOGS)
async def test_what_is_in_the_vault(tmp_path: Path, log: str, request: pytest.FixtureRequest) -> None:
    """Parked is what failed and whose sender may not be told; a person has it tried again, or deletes it."""
    kafka = request.getfixturevalue("broker") if log == "kafka" else ()
    async with (
        Zone(ZONE.replace("ip4:127.0.0.1 -all", "-all")) as zone,  # nobody is who he says
        Primary(address="127.0.0.2", known={ANN, BOB}) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, activation="dns", kafka=kafka) as running,
    ):
        await running.ask("domain", "add", "office.example")
        assert await running.ask("vault", "list") == (0, "The vault is empty.\n", "")
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail(ANN)).startswith("250")
            assert (await client.mail(BOB)).startswith("250")
            await primary.got(2)
            await primary.down()
            assert (await client.mail(ANN)).startswith("250")
            assert (await client.mail(BOB)).startswith("250")
        rows = await states(running, dict.fromkeys((ANN, BOB), "waiting"))
        ann, bob = (rows[name]["queue_id"] for name in (ANN, BOB))
        said = await running.ask("vault", "delete", ann, "--yes")
        assert said == (1, "", f"backupmx: there is no mail {ann} in the vault\n")
        await running.ask("queue", "bounce", "--domain", "office.example", "--yes")
        await states(running, dict.fromkeys((ANN, BOB), "parked"))

        rows = {row["queue_id"]: row for row in (await running.ask("vault", "list", "--json")).rows}
        assert [rows[id_]["cause"] for id_ in (ann, bob)] == ["given-up", "given-up"]
        assert rows[ann]["until"] == rows[ann]["since"] + 7 * 86400
        assert (await running.ask("vault", "list", "--domain", "office.example")).out.endswith("2 mails\n")
        assert "cause: given-up\n" in (await running.ask("vault", "show", ann)).out
        assert await running.ask("vault", "delete", bob, "--yes") == (0, f"{bob} is deleted.\n", "")
        said = await running.ask("vault", "redeliver", "--sender", "@sender.example")
        assert said == (0, "1 mail is taken up again.\n", "")
        await primary.up()
        await primary.got(3)
        await states(running, {})
        assert (await running.ask("vault", "list", "--json")).rows == []
        assert len(primary.received) == 3


async def test_a_domain_is_suspended_and_held(tmp_path: Path) -> None:
    """Suspended: 451 4.3.2 at RCPT, nothing is dialled. Held: mail is taken and waits. Resumed: both end."""
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={ANN, BOB, EVA}) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, activation="dns") as running,
    ):
        await running.ask("domain", "add", "office.example")
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail(ANN)).startswith("250")
            await primary.got(1)
            said = await running.ask("suspend", "office.example", "--accept", "--json")
            assert (said.code, said.rows[0]["state"]) == (0, "held")
            assert (await client.mail(ANN)).startswith("250")
            visits = len(primary.visits)
            said = await running.ask("suspend", "Office.Example")
            assert said.out.startswith("office.example is suspended: its senders try again later;")
            refused = await client.mail(BOB)
            assert refused.startswith("451 4.3.2"), refused
            await running.ask("queue", "flush", "office.example")
            assert (await running.ask("domain", "show", "office.example", "--json")).rows[0]["waiting"] == 1
            assert len(primary.visits) == visits
            assert await running.ask("resume", "office.example") == (
                0,
                "office.example is active again.\n",
                "",
            )
            await primary.got(2)
            assert (await client.mail(BOB)).startswith("250")
            await primary.got(3)
        texts = [event["text"] for event in running.events("Domain", domain="office.example")]
        assert [text.split(" by ")[0] for text in texts[1:]] == ["held", "suspended", "active"]
        said = await running.ask("suspend", "nix.example")
        assert said == (1, "", "backupmx: nix.example is no relay domain\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("queue", "hold"), "say which mail: an id, or a domain, sender, recipient or age"),
        (("queue", "retry", "abc", "--domain", "a.example"), "an id stands for one mail: leave out the rest"),
        (
            ("queue", "release", "--sender", "eve"),
            "'eve' is neither a mail address, nor @ and a domain, nor <>",
        ),
        (("queue", "delete", "--older", "soon", "--yes"), "'soon' is no duration such as 90s, 15m, 2h or 7d"),
        (("queue", "bounce", "--domain", "a b"), "'a b' is no domain name"),
        (("suspend", "a b"), "'a b' is no domain name"),
    ],
)
async def test_wrong_use(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    """One sentence, exit code 2, nothing asked."""
    running = Running(tmp_path, dns=[("127.0.0.1", 53)], dial_port=25)
    try:
        said = await running.ask(*words)
    finally:
        await running.close()
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
