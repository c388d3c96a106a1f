"""backupmx as real processes: started, killed, asked, read.

    async with Running(tmp_path, dns=zone.servers, dial_port=primary.port) as running:    # solo, ready
        await running.ask("domain", "add", "office.example")
        running.smtp_port                                       # stays the same over restarts
        await running.kill("solo"); await running.start("solo")
        await running.until(lambda: running.events("Delivery"))

With `kafka=bootstrap`, each service is a process of its own on topics of its own. Settings are given as the
environment gives them: `timing__probe_s="0.5"`.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol, Self

import httpx

from tests.helpers import forked
from tests.helpers.forked import Child
from tests.helpers.patience import PATIENCE_S, until

SERVICES = ("ingest", "verify", "deliver", "control")
HOSTS = ("mx1.backup.example", "mx2.backup.example")

CONFIG = """\
state_directory = "state"

[installation]
id = "{id}"
hosts = ["mx1.backup.example", "mx2.backup.example"]
operators = "postmaster@isp.example"
activation = "{activation}"

[host]
name = "{host}"

[log]
{log}

[smtp]
listen = ["127.0.0.1:{port}"]
drain_s = 0.0

[dial]
port = {dial_port}
allow = ["127.0.0.0/8", "::1/128"]

[dns]
servers = {dns}
timeout_s = 2.0

[health]
listen = "127.0.0.1:0"

[timing]
settle_s = 0.0
probe_s = 1.0
examine_s = 0.0
"""


Process = Child | asyncio.subprocess.Process


class Begin(Protocol):
    """forked.begin, or executed.begin."""

    async def __call__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        *,
        out: BinaryIO | int | None = None,
        err: BinaryIO | int | None = None,
        first: str = "",
    ) -> Process: ...


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[Any]:
        """The objects of `--json`."""
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """One host of an installation in `folder`. `start_all` and `ready` have happened inside the context.

    `kafka`: bootstrap servers, else the embedded log; `join`: a host whose log and installation this one
    shares (over Kafka); `begin`: how its processes are started."""

    def __init__(
        self,
        folder: Path,
        *,
        dns: Sequence[tuple[str, int]],
        dial_port: int,
        kafka: Sequence[str] = (),
        replication: int = 1,
        activation: str = "trusted",
        host: str = HOSTS[0],
        join: "Running | None" = None,
        begin: Begin = forked.begin,
        **settings: str,
    ) -> None:
        self.folder, self.host = folder, host
        self.names: tuple[str, ...] = SERVICES if kafka else ("solo",)
        self.id = join.id if join else secrets.token_hex(8)
        self.prefix = join.prefix if join else f"r{secrets.token_hex(4)}."
        self._joins, self._kafka = join is not None, bool(kafka)
        # Bound and never listening: the port stays ours while ingest is down.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.smtp_port = int(self._holder.getsockname()[1])
        self._begin = begin
        self._processes: dict[str, Process] = {}
        self._commands: list[Process] = []
        self._outputs: dict[str, list[Path]] = {}
        self._starts = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "backupmx.toml"
        log = 'kind = "sqlite"'
        if kafka:
            log = f'kind = "kafka"\nbootstrap = {json.dumps(list(kafka))}\nreplication = {replication}\n'
            log += f'prefix = "{self.prefix}"'
        self.config.write_text(
            CONFIG.format(
                id=self.id,
                activation=activation,
                host=host,
                log=log,
                port=self.smtp_port,
                dial_port=dial_port,
                dns=json.dumps([f"{address}:{port}" for address, port in dns]),
            )
        )
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("BACKUPMX_")
        }
        self.environment |= {f"BACKUPMX_{name.upper()}": value for name, value in settings.items()}

    async def __aenter__(self) -> Self:
        try:
            if self._kafka and not self._joins:
                said = await self.ask("topics", "apply", "--new")
                assert said.code == 0, said.err
            await asyncio.gather(*(self.start(name) for name in self.names))
            await self.ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill whatever still runs."""
        for name in tuple(self._processes):
            await self.kill(name)
        for command in self._commands:
            if command.returncode is None:
                command.kill()
                await command.communicate()
        self._holder.close()

    # --- processes ---

    async def start(self, name: str, *, first: str = "", **settings: str) -> None:
        """Start `solo` or one service; `ready` waits for it. `first`: Python that the process runs before it
        begins, such as one that has it die at some moment."""
        self._starts += 1
        out = self.folder / f"{name}.{self._starts}.out"
        self._outputs.setdefault(name, []).append(out)
        environment = self.environment | {f"BACKUPMX_{key.upper()}": text for key, text in settings.items()}
        with out.open("wb") as lines, out.with_suffix(".err").open("wb") as errors:
            self._processes[name] = await self._begin(
                self._words(name), environment, forked.ROOT, out=lines, err=errors, first=first
            )

    async def kill(self, name: str) -> None:
        """kill -9, and wait for the end."""
        process = self._processes[name]
        if process.returncode is None:
            process.kill()
        await process.wait()
        del self._processes[name]

    async def stop(self, name: str, within: float = PATIENCE_S) -> int:
        """SIGTERM, and wait for the end; returns the exit code."""
        process = self._processes[name]
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(process.wait(), within)
        except TimeoutError:
            raise AssertionError(f"{name} did not drain within {within:.0f} s\n{self.tail(name)}") from None
        del self._processes[name]
        return code

    async def ended(self, name: str, within: float = PATIENCE_S) -> int:
        """Wait until a process ends by itself; returns the exit code."""
        code = await asyncio.wait_for(self._processes[name].wait(), within)
        del self._processes[name]
        return code

    def send(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def runs(self, name: str) -> bool:
        return name in self._processes and self._processes[name].returncode is None

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    async def ready(self, *names: str, within: float = PATIENCE_S) -> None:
        """Return when /readyz of these (of all that were started) says 200."""
        deadline = time.monotonic() + within
        for name in names or tuple(self._processes):
            while (answer := await self.page(name, "readyz")) is None or answer.status_code != 200:
                process = self._processes[name]
                said = "" if answer is None else answer.text
                if process.returncode is not None:
                    raise AssertionError(f"{name} ended with {process.returncode}\n{self.tail(name)}")
                if time.monotonic() > deadline:
                    raise AssertionError(f"{name} is not ready: {said}\n{self.tail(name)}")
                await asyncio.sleep(0.02)

    async def page(self, name: str, page: str) -> httpx.Response | None:
        """/livez, /readyz or /metrics of a process; None when it does not answer."""
        port = self.health_port(name)
        if port is None:
            return None
        try:
            async with httpx.AsyncClient() as client:
                return await client.get(f"http://127.0.0.1:{port}/{page}", timeout=5)
        except httpx.HTTPError:
            return None

    async def metric(self, name: str, series: str) -> float:
        """The value of a series, such as `backupmx_accepted_total`; 0 when it is not there."""
        answer = await self.page(name, "metrics")
        assert answer is not None, f"{name} does not answer"
        lines = (line.rpartition(" ") for line in answer.text.splitlines())
        return next((float(value) for found, _, value in lines if found == series), 0.0)

    def health_port(self, name: str) -> int | None:
        """The port that the newest process of `name` logged."""
        for line in self._lines(self._outputs[name][-1]):
            if line.get("event") == "health is served":
                return int(line["port"])
        return None

    # --- what they say ---

    def lines(self, *names: str) -> list[Mapping[str, Any]]:
        """All JSON lines of these processes (of all), also of those that are gone, in each one's order."""
        outputs = [out for name in names or tuple(self._outputs) for out in self._outputs[name]]
        return [line for out in outputs for line in self._lines(out)]

    def events(self, kind: str, **fields: Any) -> list[Mapping[str, Any]]:
        """The events of type `kind` with these fields, as events("Delivery", id=...)."""
        return [
            line
            for line in self.lines()
            if line.get("type") == kind and all(line.get(name) == value for name, value in fields.items())
        ]

    async def until(self, predicate: Callable[[], object], within: float = PATIENCE_S) -> None:
        """Return once `predicate()` is true; a failure tells what the processes said last."""
        await until(predicate, within, self._tails)

    def _tails(self) -> str:
        return "\n".join(f"--- {name}\n{self.tail(name)}" for name in self._outputs)

    def tail(self, name: str) -> str:
        """The last lines that the newest process of `name` wrote, and its standard error."""
        out = self._outputs[name][-1]
        lines = out.read_text("utf-8", "replace").splitlines()[-15:]
        return "\n".join([*lines, out.with_suffix(".err").read_text("utf-8", "replace")[-4000:]])

    @staticmethod
    def _lines(out: Path) -> list[Mapping[str, Any]]:
        """The last line may be cut off by a kill."""
        found = []
        for line in out.read_text("utf-8", "replace").splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                found.append(json.loads(line))
        return found

    # --- the product's own commands ---

    def _words(self, *words: str) -> list[str]:
        return [*words, "--config", str(self.config)]

    async def begin(self, *words: str, stderr: int | None = None) -> Process:
        """Start `backupmx WORDS --config ...`; `stderr`: a file descriptor of its own. Killed at the end."""
        command = await self._begin(self._words(*words), self.environment, forked.ROOT, err=stderr)
        self._commands.append(command)
        return command

    async def ask(self, *words: str, within: float = 90.0) -> Said:
        """Run `backupmx WORDS --config ...` and return what it said."""
        process = await self.begin(*words)
        try:
            out, err = await asyncio.wait_for(process.communicate(), within)
        except TimeoutError:
            raise AssertionError(f"backupmx {' '.join(words)} takes over {within:g} s") from None
        return Said(process.returncode or 0, out.decode(), err.decode())
