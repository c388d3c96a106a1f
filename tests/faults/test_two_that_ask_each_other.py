"""Two installations of ours, each of which takes the other for a primary: questions do not go round."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.helpers.client import Client
from tests.helpers.running import Running
from tests.helpers.zone import Zone

HOSTS = """
    mx.left.example   A 127.0.0.2
    mx.right.example  A 127.0.0.3
    sender.example    TXT "v=spf1 ip4:127.0.0.1 -all"
"""
ONE = (
    HOSTS
    + """
    left.example      MX 10 mx.right.example
                      MX 20 mx.left.example
    right.example     MX 10 mx.left.example
                      MX 20 mx.right.example
"""
)
DOMAINS = ("left.example", "right.example")


def view(primary: str) -> str:
    """What one of them sees: the other one is the primary of all domains."""
    return HOSTS + "".join(f"    {domain} MX 10 {primary}\n" for domain in DOMAINS)


class Two(NamedTuple):
    """Both serve both domains, from a port of their own address."""

    left: Running
    right: Running
    port: int

    async def rcpt(self, address: str, *recipients: str) -> list[str]:
        """The replies to RCPT, all sent in one write."""
        async with Client(self.port, host=address) as client:
            await client.greet()
            lines = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in recipients)
            await client.send(f"MAIL FROM:<eve@sender.example>\r\n{lines}".encode())
            assert (await client.reply()).startswith("250 ")
            return [(await client.reply())[:9] for _ in recipients]


def free_port(*addresses: str) -> int:
    """One that nobody listens at, at any of the addresses."""
    while True:
        with socket.socket() as first:
            first.bind((addresses[0], 0))
            port = int(first.getsockname()[1])
            try:
                for address in addresses[1:]:
                    with socket.socket() as other:
                        other.bind((address, port))
            except OSError:
                continue
            return port


@asynccontextmanager
async def two(folder: Path, left_sees: str, right_sees: str, *more: str) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        port = free_port("127.0.0.2", "127.0.0.3")
        made = []
        for name, address, sees in (("left", "127.0.0.2", left_sees), ("right", "127.0.0.3", right_sees)):
            zone = await stack.enter_async_context(Zone(sees))
            host = f"mx.{name}.example"
            running = Running(
                folder / name, dns=zone.servers, dial_port=port, host=host,
                installation__hosts=f'["{host}"]', host__ipv4=f'["{address}"]',
                smtp__listen=f'["{address}:{port}"]', installation__operators="ops@isp.example",
            )  # fmt: skip
            made.append(await stack.enter_async_context(running))
        for running in made:
            for domain in DOMAINS:
                said = await running.ask("domain", "add", domain, *more)
                assert said.code == 0, said.err
        yield Two(*made, port)


async def questions(running: Running) -> float:
    """How many callouts had an end."""
    page = await running.page("solo", "metrics")
    assert page is not None
    lines = [line for line in page.text.splitlines() if line.startswith("backupmx_callouts_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_each_is_the_primary_of_the_others_domain(tmp_path: Path) -> None:
    """Who exists at the primary is its operator's word there. Each question is one callout: whoever is asked
    is above itself for that domain and asks nobody. The senders of both are good without a question."""
    async with two(tmp_path, ONE, ONE, "--unverified", "defer") as at:
        for running, name in ((at.right, "ann@left.example"), (at.left, "bob@right.example")):
            said = await running.ask("domain", "recipients", "allow", name.partition("@")[2], name)
            assert said.code == 0, said.err
        left = await at.rcpt("127.0.0.2", "ann@left.example", "nobody@left.example")
        right = await at.rcpt("127.0.0.3", "bob@right.example", "nobody@right.example")
        assert left == right == ["250 2.1.5", "451 4.4.1"]
        for running, name in ((at.left, "ann@left.example"), (at.right, "bob@right.example")):
            (event,) = running.events("Recipient", recipient=name)
            assert event["text"].startswith("unknown -> deliverable: 250 2.1.5")
        before = [await questions(running) for running in (at.left, at.right)]
        assert before == [4, 4]  # two of its own; what the other one asked: nobody, and one that nobody has
        assert await at.rcpt("127.0.0.2", "postmaster@mx.left.example") == ["250 2.1.5"]
        assert await at.rcpt("127.0.0.3", "postmaster@mx.right.example") == ["250 2.1.5"]
        assert [await questions(running) for running in (at.left, at.right)] == before


async def test_each_sees_the_other_above_itself(tmp_path: Path) -> None:
    """A DNS that tells each of them something else: what one asks the other asks back. It joins the question
    under way and ends with it: taken on suspicion, and nobody has learnt anything of the recipient."""
    async with two(tmp_path, view("mx.right.example"), view("mx.left.example")) as at:
        assert await at.rcpt("127.0.0.2", "ann@left.example") == ["250 2.1.5"]
        for running in (at.left, at.right):
            assert await questions(running) <= 4
            assert not running.events("Recipient")
