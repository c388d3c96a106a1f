"""Several processes that share a port: a parent starts them, starts them again, and speaks for all.

The kernel hands each connection to one of the sockets that were bound with SO_REUSEPORT, so the parent
touches none. Each child has its health pages on a Unix socket; the parent's pages are made of theirs, and a
child that makes no progress is killed (docs/decisions/0012).
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import structlog
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from libs.runtime.clock import Clock
from libs.runtime.metrics import Metrics
from libs.runtime.run import CannotStart, Life, Phase

LOOK_S = 1.0  # between two looks at a child
ANSWER_S = 5.0  # a page of a child comes within this
STUCK_S = 60.0  # a child whose /livez was not good for so long is killed
PAUSE_S, LONGEST_S = 1.0, 30.0  # before a child is started again: doubled each time it dies young
YOUNG_S = 60.0
HURRY_S = 5.0  # so long the children have to end when the parent is told so twice, or fails

log = structlog.get_logger()


class Child:
    """One of the processes, over all its lives. `number`: from 0; `ready`: it said so when last asked."""

    def __init__(self, number: int, start: Callable[[int], BaseProcess], socket: Path, clock: Clock) -> None:
        self.number, self.ready = number, False
        self._start, self._clock = start, clock
        self._pages = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://child", timeout=ANSWER_S
        )
        self._process: BaseProcess | None = None
        self._began = self._good_at = 0.0
        self._pause_s = PAUSE_S

    def start(self) -> None:
        self._began = self._good_at = self._clock.mono()
        self.ready = False
        self._process = self._start(self.number)
        log.info("process started", process=self.number, pid=self._process.pid)

    def send(self, number: signal.Signals) -> None:
        """To the process, if it lives."""
        process = self._process
        if process is not None and process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)

    async def ended(self) -> int | None:
        """Look after the process until it ends: its exit code. One that is stuck is killed."""
        assert self._process is not None
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, gone.set)
        try:
            while not gone.is_set():
                await self._look()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await gone.wait()
                except TimeoutError:
                    continue
        finally:
            loop.remove_reader(self._process.sentinel)
            self.ready = False
        self._process.join()
        return self._process.exitcode

    def pause(self) -> float:
        """Seconds until the process is to be started again."""
        young = self._clock.mono() - self._began < YOUNG_S
        now_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_S) if young else PAUSE_S
        return now_s

    async def metrics(self) -> list[Metric]:
        """What it has, each sample with the label `process`; nothing when it does not answer."""
        try:
            text = (await self._pages.get("/metrics")).text
        except httpx.HTTPError:
            return []
        return [_labelled(metric, str(self.number)) for metric in text_string_to_metric_families(text)]

    async def _look(self) -> None:
        try:
            answer = await self._pages.get("/livez")
        except httpx.HTTPError:
            self.ready = False
        else:
            services = answer.json()["services"].values()
            self.ready = all(service["phase"] == Phase.READY for service in services)
            if answer.is_success:
                self._good_at = self._clock.mono()
        if self._clock.mono() - self._good_at > STUCK_S:
            log.error("a process is stuck and is killed", process=self.number)
            self.send(signal.SIGKILL)

    async def close(self) -> None:
        self.send(signal.SIGKILL)
        await self._pages.aclose()


class Children:
    """`run` is the service of the parent."""

    def __init__(self, children: Sequence[Child], metrics: Metrics) -> None:
        self._children, self._metrics = children, metrics

    def ready(self) -> bool:
        """Is there one that takes connections? The kernel gives them to those that do."""
        return any(child.ready for child in self._children)

    async def collected(self) -> CollectorRegistry:
        """The metrics of all children, and the parent's own."""
        found = await asyncio.gather(*(child.metrics() for child in self._children))
        registry = CollectorRegistry()
        own = self._metrics.registry.collect()
        registry.register(_Collected([*own, *(metric for each in found for metric in each)]))
        return registry

    async def run(self, life: Life) -> None:
        """Keep the children until drained. Raises CannotStart when one ends and none was ever ready."""
        tasks = {asyncio.ensure_future(self._keep(child, life)) for child in self._children}
        beside = [asyncio.ensure_future(each) for each in (self._signals(life), self._progress(life))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:  # all have ended by themselves, or are to hurry
            self._send(signal.SIGTERM)
            await asyncio.wait(tasks, timeout=HURRY_S)
            for each in (*tasks, *beside):
                each.cancel()
            await asyncio.gather(*tasks, *beside, return_exceptions=True)
            await asyncio.gather(*(child.close() for child in self._children))

    async def _keep(self, child: Child, life: Life) -> None:
        while True:
            child.start()
            code = await child.ended()
            if life.must_drain.is_set():
                if code:
                    log.error("a process did not drain", process=child.number, code=code)
                return
            if not life.is_ready.is_set():
                raise CannotStart(f"process {child.number} ended with {code} before any was ready")
            self._metrics.process_deaths.inc()
            pause_s = child.pause()
            log.error("a process died", process=child.number, code=code, again_in_s=pause_s)
            try:
                async with asyncio.timeout(pause_s):
                    await life.must_drain.wait()
            except TimeoutError:
                continue
            return

    async def _progress(self, life: Life) -> None:
        while True:
            life.progress()
            self._metrics.processes_ready.set(sum(child.ready for child in self._children))
            if self.ready():
                life.ready()
            await asyncio.sleep(LOOK_S / 2)

    async def _signals(self, life: Life) -> None:
        """Pass SIGHUP on, and the first SIGTERM."""
        ending = asyncio.ensure_future(life.must_drain.wait())
        try:
            while not ending.done():
                again = asyncio.ensure_future(life.reload.wait())
                await asyncio.wait({ending, again}, return_when=asyncio.FIRST_COMPLETED)
                again.cancel()
                if life.reload.is_set():
                    life.reload.clear()
                    self._send(signal.SIGHUP)
        finally:
            ending.cancel()
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for child in self._children:
            child.send(number)


class _Collected(Collector):
    """Families of several processes, those of one name together."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._families: dict[str, Metric] = {}
        for metric in metrics:
            family = self._families.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            family.samples += metric.samples

    def collect(self) -> Iterable[Metric]:
        return self._families.values()


def _labelled(metric: Metric, process: str) -> Metric:
    metric.samples = [
        sample._replace(labels={**sample.labels, "process": process}) for sample in metric.samples
    ]
    return metric
