"""The commands against real processes: with a running service, without one, and when nothing works."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.helpers.client import Client
from tests.helpers.patience import PATIENCE_S
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
    pending.example      MX 10 mail.office.example
    sender.example       TXT "v=spf1 ip4:127.0.0.1 -all"
"""


async def test_the_commands_while_the_service_runs(tmp_path: Path) -> None:
    """Each does what it says, for people and as JSON, while mail arrives, waits and is handed over."""
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={"ann@office.example"}) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port, activation="dns") as running,
    ):
        said = await running.ask("domain", "add", "Office.Example")
        assert said == (0, "office.example is active: mail for it is taken from now on.\n", "")
        said = await running.ask("domain", "add", "pending.example", "--max-size", "100000")
        assert "pending.example is pending: mail for it is taken once its MX records name mx1" in said.out
        assert said.out.endswith("What is missing: backupmx domain doctor pending.example\n")
        said = await running.ask("domain", "add", "office.example")
        assert said == (1, "", "backupmx: office.example is a relay domain already\n")

        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail("ann@office.example")).startswith("250")
            await primary.got(1)
            await primary.down()
            assert (await client.mail("ann@office.example")).startswith("250")
            refused = await client.mail("ann@pending.example")
            assert refused.startswith("451 4.3.5"), refused
        await running.until(lambda: running.events("Primary", domain="office.example"))

        rows = (await running.ask("queue", "list", "--json")).rows
        assert [(row["queue_name"], row["sender"], row["recipients"][0]["address"]) for row in rows] == [
            ("waiting", "eve@sender.example", "ann@office.example")
        ]
        mail_id = rows[0]["queue_id"]
        said = await running.ask("queue", "list")
        assert mail_id in said.out
        assert said.out.endswith("1 mail\n")
        assert f"queue id: {mail_id}\n" in (await running.ask("queue", "show", mail_id)).out
        (shown,) = (await running.ask("domain", "show", "office.example", "--json")).rows
        assert (shown["primary"], shown["waiting"], shown["recipients"]) == ("down", 1, 1)
        said = await running.ask(
            "domain", "set", "office.example", "--admission", "fallback", "--lifetime-days", "5"
        )
        assert said == (0, "office.example: admission fallback, lifetime_days 5\n", "")
        said = await running.ask("domain", "show", "Office.Example")
        assert "admission: fallback\nunverified: accept\nenforce: off\nlifetime s: 432000.0\n" in said.out
        assert "own settings: admission, lifetime_days\n" in said.out
        said = await running.ask("domain", "set", "office.example", "--admission", "default", "--json")
        assert said.rows[0]["settings"]["admission"] == "always"
        said = await running.ask("domain", "set", "office.example", "--max-size", "many")
        assert said.code == 2
        assert said.err == (
            "backupmx: max_size must be a number of octets, 65536 or more, or default, not 'many'\n"
        )
        said = await running.ask("domain", "remove", "office.example")
        assert said == (
            1, "", "backupmx: office.example cannot be removed: 1 mail waits for its primary; "
            "say --drain, --bounce or --erase\n",
        )  # fmt: skip

        await primary.up()
        said = await running.ask("queue", "flush", "office.example", "--json")
        assert said.code == 0
        assert said.rows[0]["domain"] == "office.example"
        await primary.got(2)
        await running.until(lambda: running.events("Delivery", id=mail_id))
        types = [event["type"] for event in (await running.ask("trace", mail_id, "--json")).rows]
        assert (types[0], types[-1]) == ("Reception", "Delivery")
        assert (await running.ask("queue", "list")).out == "The queue is empty.\n"

        for name in ("office.example", "pending.example"):
            assert (await running.ask("domain", "remove", name)).code == 0
        assert (await running.ask("domain", "list", "--json")).rows == []
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail("ann@office.example")).startswith(("451", "550 5.7.1"))


async def test_the_commands_without_a_service(tmp_path: Path) -> None:
    """On the embedded log they take the log themselves, and a service that starts later knows it all."""
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known={"ann@office.example"}) as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port) as running,
    ):
        await running.ask("domain", "add", "office.example")
        await primary.down()
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail("ann@office.example")).startswith("250")
        assert await running.stop("solo") == 0
        (row,) = (await running.ask("queue", "list", "--json")).rows
        assert (await running.ask("queue", "show", row["queue_id"])).code == 0
        assert (await running.ask("domain", "add", "new.example")).code == 0
        said = await running.ask("queue", "flush", "office.example")
        assert said.code == 1
        assert "this needs a running control" in said.err
        await running.start("solo")
        await running.ready()
        names = [each["domain"] for each in (await running.ask("domain", "list", "--json")).rows]
        assert names == ["new.example", "office.example"]
        await primary.up()
        said = await running.ask("queue", "flush", "office.example")
        assert said.code == 0, said.err
        await running.until(lambda: running.events("Delivery"))
        assert len(primary.received) == 1


async def test_access(tmp_path: Path) -> None:
    """Block, allow, list, remove: for people and as JSON, while the service runs and without it."""
    async with Zone(ZONE) as zone, Running(tmp_path, dns=zone.servers, dial_port=25) as running:

        async def greeted(code: str) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    async with Client(running.smtp_port) as client:
                        if (await client.reply()).startswith(code):
                            return

        assert (await running.ask("access", "list")).out.startswith("Nobody is blocked or allowed")
        said = await running.ask("access", "block", "127.0.0.0/8")
        assert said == (0, "127.0.0.0/8 is blocked.\n", "")
        await greeted("554 5.7.1")
        said = await running.ask("access", "allow", "127.0.0.1", "--for", "2h", "--json")
        assert [(row["rule"], row["until"] - row["since"]) for row in said.rows] == [("allow", 7200.0)]
        await greeted("220")
        assert (await running.ask("access", "remove", "127.0.0.1")).out == (
            "127.0.0.1 is neither blocked nor allowed any more.\n"
        )
        said = await running.ask("access", "remove", "127.0.0.1")
        assert said == (1, "", "backupmx: there is no rule for 127.0.0.1\n")
        await greeted("554 5.7.1")
        assert await running.stop("solo") == 0
        assert (await running.ask("access", "remove", "127.0.0.0/8", "--json")).rows[0]["removed"]
        said = await running.ask("access", "block", "@Spam.Example", "--for", "1d")
        assert said.out.startswith("@spam.example is blocked until 2")
        (row,) = (await running.ask("access", "list", "--json")).rows
        assert (row["subject"], row["rule"]) == ("@spam.example", "block")
        assert "@spam.example" in (await running.ask("access", "list")).out
        await running.start("solo")
        await running.ready()
        await greeted("220")


async def test_a_log_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    """A second solo on the same state directory ends, and the first does not notice."""
    async with Zone(ZONE) as zone, Running(tmp_path, dns=zone.servers, dial_port=25) as running:
        said = await running.ask("solo")
        assert said.code == 1
        assert said.err == f"backupmx: {tmp_path}/state/log.sqlite: another process of backupmx has it\n"
        assert (await running.ask("domain", "list")).code == 0


@pytest.mark.parametrize(
    ("words", "variables", "sentence"),
    [
        (("solo",), {"SMTP__LISTEN": '["127.0.0.1:99999"]'}, "BACKUPMX_SMTP__LISTEN: must be less than or"),
        (
            ("solo",),
            {"SMTP__PORT": "25"},
            "environment variable BACKUPMX_SMTP__PORT: there is no such setting",
        ),
        (("ingest",), {}, "log.kind 'sqlite' is one process: `backupmx solo`"),
        (("topics", "apply"), {}, "log.kind is 'sqlite': only Kafka has topics to apply"),
        (("domain", "add", "no domain"), {}, "'no domain' is no domain name"),
        (("domain", "add", "localhost"), {}, "'localhost' is no domain name that can receive mail"),
        (("queue", "flush", "a/b"), {}, "'a/b' is no domain name"),
        (("queue", "release", "../domains"), {}, "'../domains' is no id of a mail"),
        (("queue", "delete", "ID", "--yes"), {}, "'ID' is no id of a mail"),
        (("access", "block", "192.0.2.7/24"), {}, "did you mean 192.0.2.7 or 192.0.2.0/24?"),
        (
            ("access", "allow", "sender.example"),
            {},
            "'sender.example' is neither an IP address or network nor",
        ),
        (("access", "block", "192.0.2.7", "--for", "soon"), {}, "'soon' is no duration such as 90s, 15m, 2h"),
        (("access", "remove", "@"), {}, "'@' is neither a mail address nor @ and a domain"),
    ],
)
async def test_wrong_use_is_one_sentence_and_exit_code_2(
    tmp_path: Path, words: tuple[str, ...], variables: dict[str, str], sentence: str
) -> None:
    """No traceback, nothing on standard output, nothing done."""
    running = Running(tmp_path, dns=[("127.0.0.1", 53)], dial_port=25, **variables)
    try:
        said = await running.ask(*words)
    finally:
        await running.close()
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("backupmx: ")
    assert said.err.count("\n") == 1
    assert sentence in said.err


async def test_json_lines_are_one_object_each(tmp_path: Path) -> None:
    """Any line of --json can be read alone."""
    running = Running(tmp_path, dns=[("127.0.0.1", 53)], dial_port=25)
    try:
        for name in ("a.example", "b.example"):
            await running.ask("domain", "add", name)
        said = await running.ask("domain", "list", "--json")
    finally:
        await running.close()
    assert [json.loads(line)["domain"] for line in said.out.splitlines()] == ["a.example", "b.example"]
