"""Whole processes: how they start, wait, and end."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from deploy.kafka.cluster import Cluster, free_ports
from libs.mail.codec import encode
from libs.mail.records import Installation
from libs.topics import INSTALLATION_KEY
from tests.helpers.client import Client
from tests.helpers.forked import ROOT
from tests.helpers.kafka import broker, log_on  # noqa: F401 broker is a fixture
from tests.helpers.patience import PATIENCE_S
from tests.helpers.primary import Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
    mail.office.example  A 127.0.0.2
"""


async def rcpt(port: int, recipient: str = "ann@office.example") -> str:
    """The reply to RCPT of a new session."""
    async with Client(port) as client:
        await client.greet()
        await client.send(b"MAIL FROM:<>\r\n")
        assert (await client.reply()).startswith("250")
        await client.send(f"RCPT TO:<{recipient}>\r\n".encode())
        return await client.reply()


@contextlib.contextmanager
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.asynccontextmanager
async def stopped(folder: Path, zone: Zone, **more: Any) -> AsyncIterator[Running]:
    """Nothing is started and no topics are applied; whatever the test starts is ended."""
    running = Running(folder, dns=zone.servers, dial_port=25, **more)
    try:
        yield running
    finally:
        await running.close()


async def test_a_port_that_is_taken_ends_the_process_with_a_sentence(tmp_path: Path) -> None:
    """Of SMTP or of the health pages: exit code 1, the address, and why."""
    for number, variable in enumerate(("smtp__listen", "health__listen")):
        with taken() as port:
            value = f"127.0.0.1:{port}"
            value = f'["{value}"]' if variable == "smtp__listen" else value
            running = Running(
                tmp_path / str(number), dns=[("127.0.0.1", 53)], dial_port=25, **{variable: value}
            )
            try:
                said = await running.ask("solo")
            finally:
                await running.close()
        assert said.code == 1
        setting = variable.replace("__", ".")
        assert said.err == f"backupmx: {setting}: 127.0.0.1:{port} cannot be used: Address already in use\n"


async def test_the_log_of_another_installation_is_answered_451(tmp_path: Path) -> None:
    """Rule 7: the services run, nothing is accepted, nothing is refused for good, nothing is written."""
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2") as primary,
        Running(tmp_path, dns=zone.servers, dial_port=primary.port) as running,
    ):
        await running.ask("domain", "add", "office.example")
        assert (await rcpt(running.smtp_port)).startswith("250")
        assert (await rcpt(running.smtp_port, "ann@nix.example")).startswith("550 5.7.1")
        await running.stop("solo")
        await running.start("solo", installation__id="another-one")
        await running.ready()
        assert (await rcpt(running.smtp_port)).startswith("451")
        assert (await rcpt(running.smtp_port, "ann@nix.example")).startswith("451")
        running.environment["BACKUPMX_INSTALLATION__ID"] = "another-one"
        said = await running.ask("domain", "add", "new.example")
        assert said.code == 1
        assert f"the log belongs to installation {running.id}, not to another-one" in said.err
        await running.stop("solo")
        await running.start("solo", installation__id=running.id)
        await running.ready()
        assert (await rcpt(running.smtp_port)).startswith("250")


async def test_kafka_away_at_start(tmp_path: Path) -> None:
    """The process keeps trying: alive, not ready, its port shut; SIGTERM ends it in order; it gets ready by
    itself when Kafka comes."""
    (port,) = free_ports(1)
    async with Zone(ZONE) as zone, stopped(tmp_path, zone, kafka=[f"127.0.0.1:{port}"]) as running:
        for name in ("ingest", "control"):
            await running.start(name)
            await running.until(lambda name=name: running.health_port(name))
            ready, alive = await running.page(name, "readyz"), await running.page(name, "livez")
            assert ready is not None
            assert alive is not None
            assert (ready.status_code, alive.status_code) == (503, 200)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.smtp_port)
        said = await running.ask("domain", "list")
        assert said.code == 1
        assert "this needs a running control" in said.err
        assert await running.stop("ingest") == 0
        await running.start("ingest")
        async with Cluster(1, port=port, quick=True):
            said = await running.ask("topics", "apply", "--new")
            assert said.code == 0, said.err
            await running.ready("ingest", "control")
            assert (await rcpt(running.smtp_port)).startswith("550 5.7.1")
            for name in ("ingest", "control"):
                assert await running.stop(name) == 0


async def test_a_missing_installation_record_is_never_written_by_a_service(
    tmp_path: Path,
    broker: tuple[str, ...],  # noqa: F811
) -> None:
    """`topics apply` alone refuses, services say 451, and `--new` makes it right without a restart."""
    async with Zone(ZONE) as zone, stopped(tmp_path, zone, kafka=broker) as running:
        said = await running.ask("topics", "apply")
        assert said.code == 1
        assert "no installation record" in said.err
        await running.start("ingest")
        await running.start("control")
        await running.ready()
        assert (await rcpt(running.smtp_port, "ann@nix.example")).startswith("451")
        said = await running.ask("domain", "add", "office.example")
        assert said.code == 1
        assert "no installation record" in said.err
        assert (await running.ask("topics", "check"))[:2] == (1, "There is no installation record.\n")
        said = await running.ask("topics", "apply", "--new")
        assert f"installation {running.id} written" in said.out
        said = await running.ask("topics", "apply", "--new")
        assert f"installation {running.id} is there, with 12 partitions" in said.out
        assert (await running.ask("topics", "check")).out == ""
        async with asyncio.timeout(PATIENCE_S):
            reply = "451 4.3.2"
            while reply.startswith("451 4.3.2"):  # until its table has seen it
                reply = await rcpt(running.smtp_port, "ann@nix.example")
        assert reply.startswith("550 5.7.1")
        said = await running.ask("domain", "add", "office.example")
        assert said.code == 0, said.err
        running.environment["BACKUPMX_INSTALLATION__ID"] = "another-one"
        said = await running.ask("topics", "apply", "--new")
        assert said == (
            1,
            "",
            f"backupmx: these topics belong to installation {running.id}, not to another-one\n",
        )
        said = await running.ask("topics", "check")
        assert said.out == f"These topics belong to installation {running.id}, not to another-one.\n"


async def test_another_number_of_partitions_ends_the_process(
    tmp_path: Path,
    broker: tuple[str, ...],  # noqa: F811
) -> None:
    """A process that started without the record must not go on with a wrong N once there is one."""
    async with Zone(ZONE) as zone, stopped(tmp_path, zone, kafka=broker) as running:
        await running.ask("topics", "apply")
        await running.start("control")
        await running.ready()
        async with log_on(broker, prefix=running.prefix, partitions=12) as log:
            record = Installation(running.id, 24, 0)
            await log.append("domains", 0, INSTALLATION_KEY, encode(record), within=PATIENCE_S)
            assert await running.ended("control") == 1
        assert "the installation has 24 partitions, not 12" in running.tail("control")


async def test_a_newcomer_runs_it(tmp_path: Path) -> None:
    """`backupmx run` writes an explained configuration, says what to do next, and that works."""
    command = [sys.executable, "-c", "from services.main import main; main()", "run", "--folder", "here"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKUPMX_")}
    environment["PYTHONPATH"] = str(ROOT)
    for again in (False, True):
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path, env=environment,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            said = ""
            async with asyncio.timeout(PATIENCE_S):
                while '"listening"' not in said:
                    line = await process.stdout.readline()
                    assert line, (await process.communicate())[1].decode()
                    said += line.decode()
            assert ("Written: here/backupmx.toml" in said) is not again
            settings = tomllib.loads((tmp_path / "here" / "backupmx.toml").read_text())
            listen = settings["smtp"]["listen"][0]
            assert f"Mail is received on {listen}" in said
            next_step = re.search(r"domain add YOUR-DOMAIN --config (\S+)", said)
            assert next_step is not None
            adding = await asyncio.create_subprocess_exec(
                *command[:3], "domain", "add", f"office{again:d}.example", "--config", next_step[1],
                cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await adding.communicate()
            assert b"is active: mail for it is taken from now on." in out
            reply = await rcpt(int(listen.rpartition(":")[2]), "ann@nix.example")
            assert reply.startswith(("550 5.7.1", "451"))  # what it is depends on the DNS of this machine
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE_S):
                _, errors = await process.communicate()
            assert (process.returncode, errors) == (0, b"")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_which_version_it_is() -> None:
    """`--version` needs no configuration and tells what the distribution is called."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("backupmx"), "--version", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out.decode()) == (0, f"backupmx {metadata.version('backupmx')}\n")


@pytest.mark.parametrize(
    ("shell", "asked"),
    [
        ("bash", {"COMP_WORDS": "backupmx domain do", "COMP_CWORD": "2"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "backupmx domain do"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "backupmx domain do", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
async def test_words_are_completed(shell: str, asked: dict[str, str]) -> None:
    """What `--install-completion` has the shell ask."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("backupmx"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"_BACKUPMX_COMPLETE": f"complete_{shell}"} | asked,
    )
    out, _ = await process.communicate()
    assert b"doctor" in out
    assert b"export" not in out
