"""The primary offers something else on each connection: what is said to it is what it offered on that one."""

from pathlib import Path

import pytest

from tests.faults.scene import scene
from tests.helpers.primary import CAPABILITIES

OFFERS = (
    CAPABILITIES,
    (),
    ("PIPELINING",),
    ("SIZE 100000", "DSN"),
    ("SIZE 0",),
    ("SIZE", "8BITMIME"),
    ("SMTPUTF8", "ENHANCEDSTATUSCODES"),
    ("CHUNKING", "BINARYMIME", "XCLIENT NAME ADDR"),
    CAPABILITIES,
)


@pytest.mark.long
async def test_other_capabilities_on_each_connection(tmp_path: Path) -> None:
    """RFC 5321 section 4.1.1.1: nothing is remembered from one to the next, and each mail arrives once."""
    async with scene(tmp_path) as at:
        await at.quiet()
        for number, offer in enumerate(OFFERS, 1):
            at.office.capabilities = offer
            assert (await at.mail(subject=str(number))).startswith("250 2.0.0")
            await at.office.got(number)
            await at.quiet()
        await at.delivered(len(OFFERS))
        assert at.subjects() == [str(number) for number in range(1, len(OFFERS) + 1)]
