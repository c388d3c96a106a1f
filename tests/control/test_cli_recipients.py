"""`domain recipients` against real processes: imported, listed, exported, allowed, forgotten."""

import asyncio
import os
import pty
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.helpers.client import Client
from tests.helpers.patience import until
from tests.helpers.primary import Primary
from tests.helpers.running import Running, Said
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
    pending.example      MX 10 mail.office.example
    sender.example       TXT "v=spf1 ip4:127.0.0.1 -all"
"""
BACKUPMX = Path(sys.executable).with_name("backupmx")
ANN, BOB, EVE = "ann@office.example", "bob@office.example", "eve@office.example"


@asynccontextmanager
async def office(folder: Path, *known: str) -> AsyncIterator[tuple[Primary, Running]]:
    """All started, the domain added; its primary knows these."""
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2", known=set(known)) as primary,
        Running(folder, dns=zone.servers, dial_port=primary.port, activation="dns") as running,
    ):
        await running.ask("domain", "add", "office.example")
        yield primary, running


async def test_the_life_of_a_recipient(tmp_path: Path) -> None:
    """A file is imported; what the primary said holds in an outage; the operator's word overrides it."""
    file = tmp_path / "relay_recipients"
    file.write_text(f"# as of spring\n{ANN} OK\n{BOB} OK\n{EVE}\n")
    async with office(tmp_path, ANN, BOB) as (primary, running):
        recipients = ("domain", "recipients")
        said = await running.ask(*recipients, "list", "office.example")
        assert said.out == "Nothing is known: backupmx domain recipients import office.example FILE\n"
        said = await running.ask(*recipients, "import", "office.example", str(file))
        assert said == (0, "office.example: 3 imported: 2 deliverable, 1 undeliverable\n", "")
        said = await running.ask(*recipients, "import", "office.example", str(file), "--json")
        assert [(row["address"], row["status"]) for row in said.rows] == [
            (ANN, "deliverable"), (BOB, "deliverable"), (EVE, "undeliverable")
        ]  # fmt: skip
        assert {row["source"] for row in said.rows} == {"callout"}
        assert sum(line.startswith("RCPT") for visit in primary.visits for line in visit.commands) == 3

        await primary.down()
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail(ANN)).startswith("250")
        said = await running.ask(*recipients, "allow", "office.example", EVE)
        assert said == (0, f"{EVE} is allowed.\n", "")
        async with Client(running.smtp_port) as client:
            await client.greet()
            assert (await client.mail(EVE)).startswith("250")
        (row,) = [row for row in (await running.ask(*recipients, "list", "office.example", "--json")).rows
                  if row["address"] == EVE]  # fmt: skip
        assert (row["status"], row["source"], row["confirmed"]) == ("deliverable", "operator", 0.0)
        said = await running.ask(*recipients, "export", "office.example")
        assert said == (0, f"{ANN}\n{BOB}\n{EVE}\n", "")
        said = await running.ask(*recipients, "export", "office.example", "--format", "postfix")
        assert said == (0, f"{ANN} OK\n{BOB} OK\n{EVE} OK\n", "")
        said = await running.ask(*recipients, "list", "office.example")
        assert [line.split()[0] for line in said.out.splitlines()] == ["recipient", ANN, BOB, EVE]

        said = await running.ask(*recipients, "forget", "office.example", EVE, "--json")
        assert [(row["address"], row["status"]) for row in said.rows] == [(EVE, "unknown")]
        assert (await running.ask(*recipients, "forget", "office.example", "--all")).code == 0
        assert (await running.ask(*recipients, "list", "office.example", "--json")).rows == []
        said = await running.ask(*recipients, "forget", "office.example", "--all")
        assert said == (0, "Nothing is known of the recipients of office.example.\n", "")
        texts = [event["text"] for event in running.events("Recipient", recipient=EVE)]
        assert [text.partition(":")[0] for text in texts] == [
            "unknown -> undeliverable", "undeliverable -> deliverable", "deliverable -> unknown"
        ]  # fmt: skip


async def test_what_is_refused(tmp_path: Path) -> None:
    """Each wrong line in a sentence, and nothing is imported; wrong use is exit code 2."""
    file = tmp_path / "list"
    file.write_text(f"{ANN}\n@office.example OK\nbob@other.example\n")
    async with office(tmp_path, ANN) as (_, running):
        await running.ask("domain", "add", "pending.example")
        ask = ("domain", "recipients")
        said = await running.ask(*ask, "import", "office.example", str(file))
        assert (said.code, said.out) == (2, "")
        assert said.err.splitlines() == [
            f"backupmx: {file}, line 2: '@office.example' stands for every address of a domain, "
            "and tells of none that it exists",
            f"backupmx: {file}, line 3: bob@other.example is not of office.example",
            "backupmx: nothing is imported: correct these lines, or leave them out with --skip-bad",
        ]
        assert (await running.ask(*ask, "list", "office.example", "--json")).rows == []
        said = await running.ask(*ask, "import", "office.example", str(file), "--skip-bad")
        assert (said.code, said.out) == (0, "office.example: 1 imported: 1 deliverable\n")

        file.write_text("x@pending.example\n")
        said = await running.ask(*ask, "import", "pending.example", str(file))
        sentence = "pending.example is pending: its primary is asked about nobody"
        assert said == (1, "", f"backupmx: {sentence}\n")
        said = await running.ask(*ask, "import", "office.example", str(tmp_path / "none"))
        assert said == (2, "", f"backupmx: {tmp_path / 'none'}: No such file or directory\n")
        file.write_text("".join(f"nobody{number}\n" for number in range(23)))
        said = await running.ask(*ask, "import", "office.example", str(file))
        lines = said.err.splitlines()
        assert lines[19] == f"backupmx: {file}, line 20: 'nobody19' is no mail address"
        assert lines[20] == f"backupmx: {file}, and 3 more lines"
        assert len(lines) == 22
        file.write_text("# nobody\n")
        said = await running.ask(*ask, "import", "office.example", str(file))
        assert said == (2, "", f"backupmx: {file} holds no address of office.example\n")
        said = await running.ask(*ask, "allow", "office.example", "bob@other.example")
        assert said == (2, "", "backupmx: bob@other.example is not of office.example\n")
        said = await running.ask(*ask, "allow", "other.example", "bob@other.example")
        assert said == (1, "", "backupmx: other.example is no relay domain\n")
        await running.ask(*ask, "allow", "office.example", "a\u202eb@office.example")  # turns what follows it
        assert "a\\x202eb@office.example  " in (await running.ask(*ask, "list", "office.example")).out
        await running.ask(*ask, "forget", "office.example", "a\u202eb@office.example")
        said = await running.ask(*ask, "forget", "office.example")
        assert said == (2, "", "backupmx: forget whom? Give addresses, or --all\n")
        said = await running.ask(*ask, "export", "office.example", "--format", "xml")
        assert said == (2, "", "backupmx: --format must be list or postfix, not 'xml'\n")

        assert await running.stop("solo") == 0
        said = await running.ask(*ask, "export", "office.example")  # without a service
        assert said == (0, f"{ANN}\n", "")
        said = await running.ask(*ask, "allow", "office.example", ANN)
        assert said.code == 1
        assert "this needs a running control" in said.err


async def test_addresses_that_the_locale_cannot_write(tmp_path: Path) -> None:
    """What programs read is UTF-8 in every locale; what people read says with \\x what theirs lacks."""
    zoe, file = "zoë@office.example", tmp_path / "list"
    async with office(tmp_path, ANN) as (_, running):
        recipients = ("domain", "recipients")

        async def ask(*words: str) -> Said:
            process = await asyncio.create_subprocess_exec(
                BACKUPMX, *words, "--config", running.config, stdout=PIPE, stderr=PIPE,
                env=running.environment | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
            )  # fmt: skip
            out, err = await process.communicate()
            return Said(process.returncode or 0, out.decode(), err.decode())

        file.write_text(f"{zoe}\nwoe@other.example\nweh ë\n", encoding="utf-8")
        said = await ask(*recipients, "import", "office.example", str(file))
        assert (said.code, said.err.count("\n")) == (2, 3)
        await ask(*recipients, "allow", "office.example", ANN)
        assert (await ask(*recipients, "allow", "office.example", zoe)).code == 0
        said = await ask(*recipients, "export", "office.example")
        assert said == (0, f"{ANN}\n{zoe}\n", "")
        said = await ask(*recipients, "list", "office.example", "--json")
        assert [row["address"] for row in said.rows] == [ANN, zoe]
        said = await ask(*recipients, "list", "office.example")
        assert (said.code, [line.split()[0] for line in said.out.splitlines()]) == (
            0, ["recipient", ANN, "zo\\xeb@office.example"]
        )  # fmt: skip
        said = await ask(*recipients, "forget", "office.example", zoe)
        assert said == (0, "zo\\xeb@office.example is forgotten.\n", "")


async def test_an_import_goes_on_without_its_command(tmp_path: Path) -> None:
    """While the primary cannot be reached the import waits; it outlives the command, and a restart."""
    file = tmp_path / "list"
    file.write_text(f"{ANN}\n{EVE}\n")
    async with office(tmp_path, ANN) as (primary, running):
        await primary.down()
        said = await running.ask("domain", "recipients", "import", "office.example", str(file), "--no-wait")
        assert said == (0, "office.example: 2 imported; 2 to be asked about\n", "")
        await running.kill("solo")
        await primary.up()
        await running.start("solo")
        await running.ready()
        said = await running.ask("domain", "recipients", "import", "office.example", str(file))
        assert said == (0, "office.example: 2 imported: 1 deliverable, 1 undeliverable\n", "")


async def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    """It shows how many are answered; Ctrl-C ends the command with one sentence, not the import."""
    file = tmp_path / "list"
    file.write_text(f"{ANN}\n{EVE}\n")
    async with office(tmp_path, ANN) as (primary, running):
        primary.say("RCPT", "450 4.2.0 greylisted", to=EVE)
        ours, theirs = pty.openpty()
        words = ("domain", "recipients", "import", "office.example", str(file))
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as where a script runs the tests with `&`
        try:
            process = await running.begin(*words, stderr=theirs)
        finally:
            signal.signal(signal.SIGINT, before)
        os.close(theirs)
        os.set_blocking(ours, False)
        shown = bytearray()

        def shows(words: bytes) -> bool:
            with suppress(BlockingIOError):
                shown.extend(os.read(ours, 4096))
            return words in shown

        await until(lambda: shows(b"1/2"), story=shown.decode)
        process.send_signal(signal.SIGINT)
        await until(lambda: shows(b"the same command goes on"), story=shown.decode)
        out, _ = await process.communicate()
        os.close(ours)
        assert (process.returncode, out) == (1, b"")
        listed = ("domain", "recipients", "list", "office.example", "--json")

        async def shown_greylisted() -> bool:
            rows = (await running.ask(*listed)).rows
            statuses = [(row["address"], row["status"]) for row in rows]
            assert statuses == [(ANN, "deliverable"), (EVE, "unknown")]
            return bool(rows[1]["outcome"] == "greylisted" and rows[1]["imported"])

        await until(shown_greylisted)
