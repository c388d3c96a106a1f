"""kill -9 at each step of writing a DSN: the sender hears of it once, and the mail ends."""

from email import message_from_bytes
from pathlib import Path

import pytest

from tests.faults.scene import Scene, scene

# deliver's own writes for a mail that fails for one recipient: its state with the notice begun, the notice's
# content, the notice's record, its tombstone; then, at about the same time, that of the delivered notice.
STEPS = (1, 2, 3, 4, 5)
DIES = """
import os, signal
from services.deliver.partition import Partition
write, writes = Partition._insist, []
async def dying(self, topic, key, value, headers, *, accepted):
    stored = await write(self, topic, key, value, headers, accepted=accepted)
    if topic in ("queue", "content"):
        writes.append(topic)
        if len(writes) == {step}:
            os.kill(os.getpid(), signal.SIGKILL)
    return stored
Partition._insist = dying
"""


async def killed_at(at: Scene, step: int, name: str) -> None:
    """Take a mail that will fail while its primary is away, and die at this step of what comes of it."""
    await at.office.down()
    assert (await at.mail()).startswith("250 2.0.0")
    at.office.say("DOT", "552 5.3.4 too large")
    await at.backup.stop(name)
    await at.office.up()
    await at.backup.start(name, first=DIES.replace("{step}", str(step)))
    assert await at.backup.ended(name) == -9
    await at.backup.start(name)
    await at.backup.ready(name)
    await at.sender.got(1)
    await at.emptied()


def messages(at: Scene) -> list[str]:
    return [message_from_bytes(mail.content)["Message-ID"] for mail in at.sender.received]


@pytest.mark.parametrize("step", STEPS)
async def test_killed_while_a_notice_is_written(tmp_path: Path, step: int) -> None:
    """Whatever was written when it died: one notice under one id; a second copy only where it died between
    the sender's 250 and the tombstone."""
    async with scene(tmp_path) as at:
        await killed_at(at, step, "solo")
        assert len(set(messages(at))) == 1
        assert len(messages(at)) <= (2 if step >= 4 else 1)
        assert b"Status: 5.3.4" in at.sender.received[0].content
        assert not at.office.received
        assert await at.backup.stop("solo") == 0


async def test_killed_while_a_notice_is_written_over_kafka(tmp_path: Path, broker: tuple[str, ...]) -> None:
    """The same between the content of a notice and its record, where a log of many processes is written
    to."""
    async with scene(tmp_path, kafka=broker) as at:
        await killed_at(at, 2, "deliver")
        assert len(set(messages(at))) == 1
        assert len(messages(at)) == 1
        for name in ("ingest", "verify", "deliver", "control"):
            assert await at.backup.stop(name) == 0
