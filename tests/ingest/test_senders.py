"""The null MX of a sender's domain, where a dialogue in a file cannot show it."""

import asyncio
import time
from pathlib import Path

from libs.runtime.dns import Dns
from services.ingest.senders import MOST, WAIT_S, Senders
from tests.helpers.patience import until
from tests.ingest.house import House
from tests.ingest.test_service import ANN, opened

TIMEOUT_S = 30.0


async def test_dns_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """RCPT waits two seconds for the sender's domain, and then the sender is one like any other. A flood of
    senders is not looked up."""
    async with House(tmp_path, zone="silent.example !timeout") as house:
        dns = Dns(house.zone.servers, house.clock, timeout_s=TIMEOUT_S)
        senders = Senders(house.deps._replace(dns=dns))
        began = time.monotonic()
        senders.expect("silent.example")
        assert senders.null_mx("silent.example") is None
        assert await senders.find("silent.example") is False
        assert WAIT_S <= time.monotonic() - began < TIMEOUT_S
        for number in range(2 * MOST):
            senders.expect(f"n{number}.silent.example")
        assert len(senders._asking) == MOST
        began = time.monotonic()
        assert await senders.find("new.silent.example") is False
        assert time.monotonic() - began < WAIT_S
        await dns.close()
        await asyncio.sleep(0)


async def test_a_domain_is_asked_about_once(tmp_path: Path) -> None:
    """It is asked for when MAIL comes, before anybody waits for it; what is known is not asked for again."""
    async with House(tmp_path, zone="sender.example MX 0 .") as house:
        await opened(house)
        async with house.client() as client:
            await client.greet()
            await client.send(b"MAIL FROM:<eve@sender.example>\r\n")
            assert (await client.reply()).startswith("250 ")
            await until(lambda: house.zone.questions == [("sender.example", "MX")])
            await client.send(b"RSET\r\n")
            assert (await client.reply()).startswith("250 ")
            for _ in range(3):
                assert (await client.mail(ANN)).startswith("550 5.7.27")
        assert house.zone.questions == [("sender.example", "MX")]
