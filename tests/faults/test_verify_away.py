"""verify is away: known recipients are answered from the cache, new ones are taken on suspicion."""

import time
from pathlib import Path

import pytest

from tests.faults.reading import FORGED, LOGS, REFUSED, backup
from tests.faults.scene import ANN, BOB, Scene, scene
from tests.helpers.patience import PATIENCE_S

DEADLINE_S = 3.0
STRANGERS = [f"stranger-{number}@office.example" for number in range(6)]


async def timed(at: Scene, recipient: str) -> float:
    """How long the 250 to RCPT took, in seconds."""
    begun = time.monotonic()
    assert (await at.rcpt(recipient)).startswith("250 2.1.5")
    return time.monotonic() - begun


async def test_verify_is_away(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """Nobody waits for ever and nobody is refused: after the deadlines, accepted with `temperror`."""
    async with scene(
        tmp_path,
        kafka=broker,
        timing__rcpt_deadline_s=str(DEADLINE_S),
        timing__verdict_deadline_s="1",
    ) as at:
        assert (await at.mail(ANN, subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        assert b"spf=pass" in at.office.received[0].content
        await at.backup.kill("verify")
        took = [await timed(at, recipient) for recipient in (ANN, *STRANGERS)]
        assert took[0] < DEADLINE_S  # known
        assert all(each >= DEADLINE_S for each in took[1:4])  # the deadline
        assert all(each < DEADLINE_S for each in took[4:])  # it was silent three times: nobody waits any more
        assert (await at.mail(ANN, subject="known")).startswith("250 2.0.0")
        assert (await at.mail(BOB, subject="new")).startswith("250 2.0.0")
        await at.office.got(3)
        assert sorted(at.subjects()) == ["before", "known", "new"]
        for mail in at.office.received[1:]:
            head = mail.content.partition(b"\r\n\r\n")[0]
            assert b"temperror" in head
            assert b"spf=pass" not in head
        await at.backup.start("verify")
        await at.backup.ready("verify")
        replies: list[str] = []

        async def answered() -> bool:
            replies.append(await at.rcpt(f"nobody-{len(replies)}@office.example"))
            return replies[-1].startswith("550 5.1.1")

        deadline = time.monotonic() + PATIENCE_S  # ingest lets one question wait every 15 s
        while not await answered():
            assert time.monotonic() < deadline, replies


@LOGS
async def test_what_would_be_refused_is_accepted(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """Without verify nobody knows that a mail is forged: `temperror`; it is refused when verify is back."""
    async with backup(tmp_path, kind, request) as at:
        running = await at.verify()
        assert (await at.mail(FORGED)).startswith(REFUSED)
        await running.stop()
        at.house.config.timing.__dict__["verdict_deadline_s"] = 0.5
        assert (await at.mail(FORGED)).startswith("250 2.0.0")
        [fields] = await at.results()
        assert all(f"{method}=temperror".encode() in fields for method in ("spf", "dkim", "dmarc"))
        at.house.config.timing.__dict__["verdict_deadline_s"] = 30.0
        await at.verify()
        assert (await at.mail(FORGED)).startswith(REFUSED)
