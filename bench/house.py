"""What is measured and what it needs around it: backupmx as real processes, DNS, a primary, senders.

Senders and primary are processes of their own, so that what they cost is not counted as ours.
"""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import trustme

from deploy.kafka.cluster import Cluster
from tests.helpers import executed
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ROOT = Path(__file__).parent.parent
ADDRESS = "127.0.0.2"  # of the primary
DOMAIN = "office.example"
KNOWN = f"ann@{DOMAIN}"
ZONE = """
    $TTL 300
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    isp.example          MX 10 mail.isp.example
    sender.example       MX 10 mail.sender.example
                         TXT "v=spf1 ip4:127.0.0.1 -all"
    client.sender.example A 127.0.0.1
                         TXT "v=spf1 a -all"
    mail.office.example  A 127.0.0.2
    mail.isp.example     A 127.0.0.3
    mx1.backup.example   A 127.0.0.1
    mx2.backup.example   A 127.0.0.1
"""


class Primary:
    """bench.sink, there or not, on one port."""

    def __init__(self) -> None:
        self._holder = socket.socket()  # bound, never listening: the port stays ours while it is away
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind((ADDRESS, 0))
        self.port = int(self._holder.getsockname()[1])
        self._process: asyncio.subprocess.Process | None = None

    async def up(self, delay_s: float = 0.0) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.sink", "--address", ADDRESS, "--port", str(self.port),
            "--delay", str(delay_s), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        await self._line()

    async def down(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def counts(self) -> Mapping[str, Any]:
        """See bench.sink."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await self._line()

    async def took(self, mails: int, within: float) -> Mapping[str, Any]:
        """Wait until it has taken so many mails."""
        async with asyncio.timeout(within):
            while True:
                counts = await self.counts()
                if counts["mails"] >= mails:
                    return counts
                await asyncio.sleep(0.1)

    async def _line(self) -> Mapping[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        counts: Mapping[str, Any] = json.loads(await self._process.stdout.readline())
        return counts

    async def close(self) -> None:
        await self.down()
        self._holder.close()


class House:
    """`pids`: name -> process of all that is ours, the first broker included; `brokers`: all of them."""

    def __init__(self, running: Running, primary: Primary, cluster: Cluster | None) -> None:
        self.running, self.primary = running, primary
        self.log = "sqlite" if cluster is None else "kafka"
        self.brokers = [pid for pid in cluster.pids if pid is not None] if cluster is not None else []
        self.pids = {name: running.pid(name) for name in running.names}
        if self.brokers:
            self.pids["broker"] = self.brokers[0]

    async def command(self, *words: str) -> None:
        said = await self.running.ask(*words)
        if said.code:
            raise SystemExit(f"backupmx {' '.join(words)}: {said.err}")

    async def load(self, **options: object) -> dict[str, float]:
        """bench.load with these options; its figures."""
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.load", "--port", str(self.running.smtp_port), *words,
            stdout=asyncio.subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        out, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"the senders failed\n{self.running.tail(self.running.names[0])}")
        figures: dict[str, float] = json.loads(out)
        return figures


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate, and its key on P-256."""
    folder.mkdir(parents=True, exist_ok=True)
    made = trustme.CA().issue_cert("mx1.backup.example")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made.private_key_pem.write_to_path(str(key))
    for part in made.cert_chain_pems:
        part.write_to_path(str(certificate), append=True)
    return certificate, key


@asynccontextmanager
async def house(folder: Path, cluster: Cluster | None = None, more: str = "") -> AsyncIterator[House]:
    """Ready, with one relay domain, its primary up. `more`: lines of DNS besides."""
    primary = Primary()
    certificate, key = _certificate(folder)
    try:
        async with (
            Zone(dedent(ZONE) + more, negative_s=300) as zone,
            Running(
                folder,
                dns=zone.servers,
                dial_port=primary.port,
                kafka=cluster.bootstrap if cluster else (),
                begin=executed.begin,
                smtp__tls_certificate=str(certificate),
                smtp__tls_key=str(key),
            ) as running,
        ):
            built = House(running, primary, cluster)
            await primary.up()
            await built.command("domain", "add", DOMAIN)
            yield built
    finally:
        await primary.close()
