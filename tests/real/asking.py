"""Asks our port about a recipient, and looks at what came of the callout."""

from libs.mail.reply import parse_line
from libs.mail.stance import stance
from libs.mail.trouble import server, trouble
from tests.helpers.client import Client
from tests.real.place import EVE, Place


async def rcpt(at: Place, *recipients: str) -> list[str]:
    """Code and enhanced code of the replies to RCPT, all sent in one write, as a sender's server hears
    them."""
    async with Client(at.backup.smtp_port) as client:
        await client.greet()
        lines = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in recipients)
        await client.send(f"MAIL FROM:<{EVE}>\r\n{lines}".encode())
        assert (await client.reply()).startswith("250 ")
        return [" ".join((await client.reply()).split(" ")[:2]) for _ in recipients]


async def questions(at: Place) -> dict[str, float]:
    """By outcome, how many questions verify has had since it runs."""
    page = await at.backup.page("solo", "metrics")
    assert page is not None
    found = {}
    for line in page.text.splitlines():
        if line.startswith("backupmx_callouts_total{"):
            name, _, value = line.rpartition(" ")
            found[name.split('"')[1]] = float(value)
    return found


async def since(at: Place, before: dict[str, float]) -> dict[str, float]:
    """The questions since `before`."""
    now = await questions(at)
    more = {outcome: count - before.get(outcome, 0) for outcome, count in now.items()}
    return {outcome: count for outcome, count in more.items() if count}


def learnt(at: Place, recipient: str) -> list[str]:
    """What verify published of a recipient, oldest first."""
    return [event["text"] for event in at.backup.events("Recipient", recipient=recipient)]


def advised(greeting: str, reply: str) -> str:
    """What the owner of a primary is told to do, and where, when it says `reply` to our RCPT; "" nothing."""
    said = parse_line(reply)
    stuck = trouble(stance("RCPT", said), said)
    return f"{stuck} at {server(greeting, said)}" if stuck else ""


def primary(at: Place, domain: str) -> str:
    """What verify last published of callouts at a domain's primary."""
    texts = [str(event["text"]) for event in at.backup.events("Primary", domain=domain)]
    return [text for text in texts if text.startswith("callouts ")][-1]
