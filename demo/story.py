"""What the demo tells, in order, and how it knows that it is true."""

import time
from collections import Counter
from collections.abc import Sequence

from deploy.kafka.cluster import Cluster
from tests.helpers.client import Client
from tests.helpers.mailing import content
from tests.helpers.primary import Primary
from tests.helpers.primary_session import Received
from tests.helpers.running import Running

HEAD = {
    False: "backupmx, all services in one process over its embedded log",
    True: "backupmx, four processes over a Kafka of three brokers, one of which will be killed",
}
ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
                         MX 30 mx2.backup.example
    isp.example          MX 10 mail.isp.example
    sender.example       MX 10 mail.sender.example
                         TXT "v=spf1 ip4:127.0.0.1 -all"
    mail.office.example  A 127.0.0.2
    mail.isp.example     A 127.0.0.3
    mx1.backup.example   A 127.0.0.1
    mx2.backup.example   A 127.0.0.1
"""
MAILS = 20
NOBODY = "nobody@office.example"
ADDED = (b"Received:", b"Authentication-Results:")


class Story:
    """`check` prints what should be so and remembers what is not."""

    def __init__(
        self, backup: Running, office: Primary, isp: Primary, cluster: Cluster | None, begun: float
    ) -> None:
        self.backup, self.office, self.isp, self.cluster, self.begun = backup, office, isp, cluster, begun
        self.wrong: list[str] = []
        self.sent: dict[str, bytes] = {}  # token -> content of what got 250

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.begun:5.1f} s  {text}", flush=True)

    def check(self, text: str, holds: bool) -> None:
        self.say(f"{'ok' if holds else 'NOT SO'}: {text}")
        if not holds:
            self.wrong.append(text)

    def end(self) -> bool:
        print("\nEverything was as it should be." if not self.wrong else "\nNot as it should be:")
        for text in self.wrong:
            print(f"  {text}")
        return not self.wrong

    async def command(self, *words: str) -> str:
        """One of the product's own commands, shown as a person sees it."""
        said = await self.backup.ask(*words)
        print(f"\n    $ backupmx {' '.join(words)}")
        print(
            "\n".join(f"    {line.rstrip()}" for line in (said.out + said.err).splitlines()) + "\n",
            flush=True,
        )
        self.check(f"`backupmx {' '.join(words)}` works", said.code == 0)
        return said.out

    async def mail(self, client: Client, token: str, recipient: str, size: int = 4000) -> str:
        """Send one mail; the reply that decided."""
        octets = content(token, size)
        reply = await client.mail(recipient, content=octets)
        if reply.startswith("250"):
            self.sent[token] = octets
        return reply

    async def tell(self) -> None:
        self.say(f"started; mail is received on 127.0.0.1:{self.backup.smtp_port}")
        await self.command("domain", "add", "office.example")
        async with Client(self.backup.smtp_port) as client:
            await client.greet("mail.sender.example")
            await self.while_up(client)
            await self.while_away(client)
        await self.when_back()
        await self.clean_up()

    # --- the three acts ---

    async def while_up(self, client: Client) -> None:
        self.say("The office's mail server is up.")
        for recipient, name in (("ann@office.example", "Ann"), ("bob@office.example", "Bob")):
            begun = time.monotonic()
            reply = await self.mail(client, f"up-{name}", recipient)
            took_ms = (time.monotonic() - begun) * 1000
            self.check(
                f"{name} is new to us: the office is asked, the mail is taken, all in {took_ms:.0f} ms",
                reply.startswith("250"),
            )
        reply = await self.mail(client, "up-nobody", NOBODY)
        self.check(f"{NOBODY} is refused in the session: {reply}", reply.startswith("550 5.1.1"))
        await self.office.got(len(self.sent), within=20)
        self.check("the office has both mails already", len(self.office.received) == len(self.sent))
        reply = await self.mail(client, "operators", "postmaster@mx1.backup.example")
        self.check("mail to our own postmaster is taken", reply.startswith("250"))
        await self.isp.got(1, within=20)
        self.check(
            "and the operators' server at isp.example has it", self.intact(self.isp.received, ["operators"])
        )

    async def while_away(self, client: Client) -> None:
        await self.office.down()
        self.say("The office's mail server is switched off.")
        begun, slowest, replies = time.monotonic(), 0.0, Counter[str]()
        for number in range(1, MAILS + 1):
            if number == MAILS // 2 + 1 and self.cluster is not None:
                self.cluster.kill(1)
                self.say(f"kill -9: one broker of three is gone, after {number - 1} mails")
            recipient = NOBODY if number == 7 else ("ann", "bob")[number % 2] + "@office.example"
            size = 3_000_000 if number == 12 else 4000
            at = time.monotonic()
            reply = await self.mail(client, f"away-{number}", recipient, size)
            slowest = max(slowest, time.monotonic() - at)
            replies[reply.partition("\n")[0][:9].rstrip()] += 1
        took_s = time.monotonic() - begun
        self.say(f"{MAILS} mails were sent in {took_s:.1f} s, the slowest took {slowest:.2f} s")
        self.check(f"{MAILS - 1} got 250, the one to {NOBODY} got 550 from memory: {dict(replies)}",
                   replies == {"250 2.0.0": MAILS - 1, "550 5.1.1": 1})  # fmt: skip
        await self.command("domain", "list")
        await self.command("queue", "list", "--limit", "5")
        rows = (await self.backup.ask("queue", "list", "--json")).rows
        waiting = Counter(row["queue_name"] for row in rows)
        self.check(
            f"the queue holds {MAILS - 1} mails that wait: {dict(waiting)}", waiting == {"waiting": MAILS - 1}
        )

    async def when_back(self) -> None:
        before = len(self.office.received)
        back = time.monotonic()
        await self.office.up()
        self.say("The office's mail server is back; nobody tells us.")
        await self.office.got(before + 1, within=30)
        first_s = time.monotonic() - back
        await self.office.got(before + MAILS - 1, within=30)
        last_s = time.monotonic() - back
        self.check(
            f"the first mail came {first_s:.1f} s after its return, the last after {last_s:.1f} s",
            first_s <= 20,
        )
        await self.backup.until(lambda: len(self.backup.events("Delivery")) >= len(self.sent))
        tokens = [token for token in self.sent if token != "operators"]
        self.check(f"each of the {len(tokens)} mails came once, octet for octet below the fields we added",
                   self.intact(self.office.received, tokens))  # fmt: skip
        self.check("our connections broke no rule of SMTP", not self.office.violations)
        event = self.backup.events("Delivery")[-1]
        await self.command("trace", event["id"])

    async def clean_up(self) -> None:
        out = await self.command("queue", "list")
        self.check("the queue is empty", "empty" in out)
        for name in self.backup.names:
            code = await self.backup.stop(name)
            self.check(f"{name} ended in order", code == 0)

    def intact(self, received: Sequence[Received], tokens: Sequence[str]) -> bool:
        """Are these exactly the mails with these tokens, each once, with nothing but our fields on top?"""
        if len(received) != len(tokens):
            return False
        wanted = {self.sent[token]: token for token in tokens}
        for each in received:
            original = next((octets for octets in wanted if each.content.endswith(octets)), None)
            if original is None:
                return False
            fields = each.content.removesuffix(original).replace(b"\r\n\t", b" ").split(b"\r\n")
            if fields.pop() or not all(field.startswith(ADDED) for field in fields):
                return False
            del wanted[original]
        return not wanted
