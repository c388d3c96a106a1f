"""Many sessions at once, and what must hold after them."""

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

from fuzz.dialogue import written
from fuzz.grammar import session
from fuzz.house import House, Mark
from fuzz.reading import Violation
from fuzz.talk import Talk

AT_ONCE = 100
MOST_FAILURES = 5
SHARES = (
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
)  # of all sessions, after which the memory is looked at
GROWTH = 4 * 2**20  # octets that the process may gain in the second half, when what is remembered is full
CLIENTS = 4096  # whoever knows a client for an hour shall have seen all of them by then


class Failure(NamedTuple):
    """`dialogue`: as a case file, "" where no session is to blame."""

    number: int
    why: str
    dialogue: str


class Outcome(NamedTuple):
    """`mailed`: (id, recipients, SHA-256) of what got 250; `perhaps`: SHA-256 of what may be in the queue."""

    number: int
    mailed: list[tuple[str, int, str]]
    perhaps: list[str]
    dialogue: str


class Campaign:
    """`failures`: after MOST_FAILURES no further session is begun; `marks`: (sessions, Mark)."""

    def __init__(self, seed: str, *, at_once: int = AT_ONCE) -> None:
        self.seed, self._at_once = seed, at_once
        self.failures: list[Failure] = []
        self.marks: list[tuple[int, Mark]] = []
        self.sessions = self.mails = 0
        self.seconds = 0.0
        self._outcomes: defaultdict[str, list[Outcome]] = defaultdict(list)
        self._blamed: set[str] = set()

    async def run(self, folder: Path, numbers: range) -> None:
        """Play these sessions."""
        began = time.monotonic()
        async with House(folder) as house:
            done = 0
            for share in SHARES:
                end = max(done, round(len(numbers) * share))
                await self._batch(house, numbers[done:end])
                done = end
                self.marks.append((done, await house.mark()))
                self._compare(house)
                if len(self.failures) >= MOST_FAILURES:
                    break
        self.seconds = time.monotonic() - began
        self._judge(house.complaints())

    async def _batch(self, house: House, numbers: Iterable[int]) -> None:
        waiting = iter(numbers)

        async def work() -> None:
            for number in waiting:
                if len(self.failures) >= MOST_FAILURES:
                    return
                await self._one(house, number)

        await asyncio.gather(*(work() for _ in range(self._at_once)))

    async def _one(self, house: House, number: int) -> None:
        talk = Talk(house.port, source(number), house.tls)
        steps = session(Random(f"{self.seed}/{number}"))
        why = ""
        try:
            await talk.play(steps)
        except Violation as violation:
            why = str(violation)
        self.sessions += 1
        if why:
            self._blamed.add(source(number))
            self.failures.append(Failure(number, why, written(self.seed, number, why, talk.said)))
            return
        mailed = [(each.id, each.recipients, _sha(each.content)) for each in talk.reading.mailed]
        self.mails += len(mailed)
        perhaps = [_sha(each) for each in talk.reading.unanswered()] if talk.early else []
        dialogue = written(self.seed, number, "", talk.said)
        self._outcomes[source(number)].append(Outcome(number, mailed, perhaps, dialogue))

    def _compare(self, house: House) -> None:
        """What got 250 is in the queue once, octet for octet; nothing else is."""
        for client in {*self._outcomes, *house.queued} - self._blamed:
            outcomes = self._outcomes.pop(client, [])
            queued = [(each.id, each.recipients, each.content) for each in house.queued.pop(client, [])]
            if why := difference(outcomes, queued):
                for outcome in outcomes:  # one of them
                    self.failures.append(Failure(outcome.number, why, outcome.dialogue))

    def _judge(self, complaints: list[str]) -> None:
        last = self.marks[-1][1]
        if last.errors or complaints:
            why = "\n".join([f"{last.errors} exceptions of ours", *complaints[:10]])
            self.failures.append(Failure(-1, why, ""))
        if last.held:
            self.failures.append(Failure(-1, f"{last.held} octets of content are held by nobody", ""))
        grown = last.resident - self.marks[(len(self.marks) - 1) // 2][1].resident
        if grown > GROWTH:
            self.failures.append(Failure(-1, f"the process has grown by {grown} octets", ""))


def source(number: int) -> str:
    """The address that session `number` comes from: its mails are known by it."""
    client = number % CLIENTS
    return f"127.64.{client >> 8}.{client & 255}"


def difference(outcomes: list[Outcome], queued: list[tuple[str, int, str]]) -> str:
    """What is wrong with what is in the queue from one client, whose sessions these were; "" where nothing
    is."""
    perhaps = [content for outcome in outcomes for content in outcome.perhaps]
    mailed = {id_: (most, content) for outcome in outcomes for id_, most, content in outcome.mailed}
    for id_, recipients, content in queued:
        most, wanted = mailed.pop(id_, (recipients, ""))
        if not wanted:
            if content not in perhaps:
                return f"in the queue, and never got 250: {id_}"
            perhaps.remove(content)
        elif wanted != content:
            return f"other octets are in the queue than were sent: {id_}"
        if not 1 <= recipients <= most:
            return f"{recipients} recipients in the queue, {most} were accepted: {id_}"
    return f"got 250 and is not in the queue, or came twice: {', '.join(mailed)}" if mailed else ""


def _sha(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()
