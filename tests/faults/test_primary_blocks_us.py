"""The primary refuses us by SPF or by a block list: that is about us and no mail of others fails for it."""

from pathlib import Path

import pytest

from tests.faults.scene import ANN, scene

KIM = "kim@sender.example"
SAID = {
    "block list at MAIL": (
        "MAIL",
        "550 5.7.1 Client host blocked using zen.spamhaus.org",
    ),
    "block list at RCPT": (
        "RCPT",
        "554 5.7.1 Client host [192.0.2.1] blocked using bl.example",
    ),
    "SPF at MAIL": ("MAIL", "550 5.7.23 SPF validation failed"),
    "SPF at RCPT": ("RCPT", "550 5.7.1 Please see http://www.openspf.org/Why?id=eve: SPF fail"),
    "SPF after the dot": ("DOT", "550 5.7.23 The message was rejected because of an SPF failure"),
    "DMARC after the dot": ("DOT", "550 5.7.26 unauthenticated mail is rejected by DMARC policy"),
}


@pytest.mark.parametrize(("stage", "reply"), SAID.values(), ids=SAID)
async def test_it_refuses_us(tmp_path: Path, stage: str, reply: str) -> None:
    """Two senders in a row: the primary is refusing, its mail waits, its owner sees why. When he has exempted
    us all of it arrives, once."""
    async with scene(tmp_path) as at:
        assert (await at.mail(subject="before")).startswith("250 2.0.0")
        await at.office.got(1)
        at.office.say(stage, reply)
        assert (await at.mail(subject="eve's")).startswith("250 2.0.0")
        await at.backup.until(lambda: at.backup.events("TransientFailure"))
        assert (await at.mail(ANN, sender=KIM, subject="kim's")).startswith("250 2.0.0")
        await at.health("refusing")
        assert len(await at.queue()) == 2
        [domain] = (await at.backup.ask("domain", "show", "office.example", "--json")).rows
        assert reply[:9] in domain["last_reply"]
        at.office.say(stage, "")
        await at.delivered(3)
        assert sorted(at.subjects()) == ["before", "eve's", "kim's"]
