"""Every case file of authentication through verify as it runs, over both logs: its message as chunks of
`content`, what was found as a record of `verdicts`."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from libs import topics
from libs.log.contract import Log
from libs.log.sqlite import SqliteLog
from libs.mail.codec import encode
from libs.mail.records import Action, Domain, Enforce, Overrides, Trace, Verdict
from libs.runtime.clock import SystemClock
from tests.helpers.clock import Clock
from tests.helpers.kafka import broker, log_on  # noqa: F401 the fixture
from tests.helpers.patience import PATIENCE_S
from tests.verify.scene import PARTITIONS, Scene, scene_on
from tests.verify.sign import zone_text
from tests.verify.test_auth_cases import Case, compare, lines, readmes, stored

FORGOTTEN_S = 6.0  # what DNS said 1 s ago, and that it said nothing 5 s ago, holds no more
IN_A_ROW = 200  # cases of one service; the rows have logs and DNS of their own: one waits, another works
DNS_S = 2.0
CUT = 400  # octets of the first chunk, of those that come in two
# A sender whom each wish refuses: asked for beside the cases, at a name that none of them has.
REFUSED = """
refused.invalid           TXT "v=spf1 -all"
_dmarc.refused.invalid    TXT "v=DMARC1; p=reject"
"""


@asynccontextmanager
async def log_of(kind: str, path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Log]:
    if kind == "kafka":
        async with log_on(request.getfixturevalue("broker"), partitions=PARTITIONS) as log:
            yield log
    else:
        async with SqliteLog(path, partitions=PARTITIONS, clock=SystemClock()) as log:
            yield log


class Wrong(Exception):  # noqa: N818
    """What was found is not what the case of this name says."""


class Asker:
    """Has the cases judged, one after the other: the DNS of each is all there is while its turn lasts."""

    def __init__(self, here: Scene, clock: Clock) -> None:
        self._here, self._clock = here, clock

    async def take(self, case: Case) -> None:
        """Twice: in two chunks while nothing is known of its DNS, then in one while all is. Raises Wrong."""
        above, below = lines(case)
        given = dict(above)
        enforce = Enforce(given.get("enforce", "off"))
        self._clock.advance(FORGOTTEN_S)
        self._clock.jump_wall(float(given.get("now", 1_800_000_000)) - self._clock.wall())
        self._here.zone.set(zone_text(case.dns) + REFUSED)
        if enforce is not Enforce.OFF:
            await self._wished(enforce, case.name)
        trace = Trace(
            1,
            f"{enforce}.example",
            "" if given["client"] == "-" else given["client"],
            "" if given["helo"] == "-" else given["helo"],
            "" if given["from"] == "<>" else given["from"],
            relay=given.get("relay", ""),
        )
        parts = (case.message[:CUT], case.message[CUT:])
        slowly = await self.judged(f"{case.name} in parts", trace, parts)
        at_once = await self.judged(f"{case.name} whole", trace, (case.message,))
        try:
            compare(case, slowly, below)
            assert replace(at_once, id=slowly.id) == slowly
        except AssertionError as error:
            raise Wrong(case.name) from error

    async def judged(self, id_: str, trace: Trace, parts: Sequence[bytes]) -> Verdict:
        """The content appended as ingest does: to the partition of the domain, the trace with the last."""
        p = topics.partition_of(trace.domain, PARTITIONS)
        for number, part in enumerate(parts, 1):
            last = replace(trace, chunks=len(parts)) if number == len(parts) else None
            await self._here.chunk(id_, number - 1, part, last, p)
        verdict = await self._here.verdict(id_)
        assert verdict.id == id_
        return verdict

    async def _wished(self, enforce: Enforce, name: str) -> None:
        """What the relay domain wants is known, and was heard since the clock moved (rule 7)."""
        domain = f"{enforce}.example"
        record = Domain(domain, 1.0, 1.0, overrides=Overrides(enforce=enforce))
        p = topics.partition_of(domain, PARTITIONS)
        await self._here.log.append("domains", p, domain.encode(), encode(record), within=PATIENCE_S)
        trace = Trace(1, domain, "192.0.2.9", "refused.invalid", "eve@refused.invalid")
        content = b"From: eve@refused.invalid\r\n\r\n"
        async with asyncio.timeout(PATIENCE_S):  # the table of domains is read beside the contents
            for number in itertools.count():
                if (await self.judged(f"{name} {number}", trace, (content,))).action is Action.REJECT:
                    return


class Settings(NamedTuple):
    """Of the installation: whose seals are believed; is Received-SPF written?"""

    trusted: tuple[str, ...]
    received_spf: bool


def rows(cases: Iterable[Case]) -> list[tuple[Settings, list[Case]]]:
    """(settings, the cases with them): each is one verify's."""
    found: dict[Settings, list[Case]] = {}
    for case in cases:
        above, below = lines(case)
        trusted = dict(above).get("trusted", "").split()
        found.setdefault(Settings(tuple(trusted), "received-spf" in dict(below)), []).append(case)
    return [
        (settings, same[first : first + IN_A_ROW])
        for settings, same in found.items()
        for first in range(0, len(same), IN_A_ROW)
    ]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("kafka", marks=pytest.mark.xdist_group("broker"))])
async def test_every_case_through_the_service(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """Each says of its verdict what it says of the pure code, and of the command."""
    wrong: list[Wrong] = []

    async def ask(path: Path, settings: Settings, cases: Sequence[Case]) -> None:
        clock = Clock()
        async with log_of(kind, path, request) as log, scene_on(log, tmp_path, clock) as here:
            asker = Asker(here, clock)
            await here.start(DNS_S, trusted=settings.trusted, received_spf=settings.received_spf)
            for case in cases:
                try:
                    await asker.take(case)
                except Wrong as error:
                    wrong.append(error)

    async with asyncio.TaskGroup() as all_of_them:
        for number, row in enumerate(rows([*stored(), *readmes()])):
            all_of_them.create_task(ask(tmp_path / f"log{number}", *row))
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} cases", wrong)
