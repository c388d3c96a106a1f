"""What `queue` and `vault` share: options that select mails, and doing something to them."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from libs.runtime.config import Config
from libs.runtime.terminal import fail, print_rows
from services.control.asking import asked
from services.control.caller import ask, call, calling
from services.control.door import PAGE
from services.control.terminal import by_whom, formed, only, run

Id = Annotated[str | None, typer.Argument(metavar="ID", help="Of one mail.", show_default=False)]
OfDomain = Annotated[str | None, typer.Option("--domain", help="All mail of this domain.")]
OfSender = Annotated[
    str | None, typer.Option("--sender", help="All mail from this address or @domain, or from <>.")
]
OfRecipient = Annotated[str | None, typer.Option("--recipient", help="All mail to this address or @domain.")]
Older = Annotated[str | None, typer.Option("--older", help="Only what came so long ago: 90s, 15m, 2h, 7d.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask whether you are sure.")]

_DONE: Mapping[str, str] = {
    "retry": "tried again",
    "hold": "held",
    "release": "released",
    "delete": "deleted",
    "bounce": "given up",
    "redeliver": "taken up again",
}


def wanted(
    verb: str,
    id_: str | None,
    domain: str | None,
    sender: str | None,
    recipient: str | None,
    older: str | None,
) -> Mapping[str, str]:
    """What was typed, once it is well-formed; a sentence and exit code 2 where it is not."""
    words = only(id=id_, domain=domain, sender=sender, recipient=recipient, older=older)
    formed(lambda _: asked(verb, words), "")
    return words


def which_text(which: Mapping[str, str]) -> str:
    """For a question."""
    return f"mail {which['id']}" if "id" in which else "all this mail"


def do_to_mails(verb: str, which: Mapping[str, str], settings: Config, *, json: bool) -> None:
    """Do it and say what that changed."""
    body = {**which, "by": by_whom()}
    say_done(verb, run(ask(settings, "POST", f"/requests/{verb}", body, running=True)), json=json)


def say_done(verb: str, row: dict[str, Any], *, json: bool) -> None:
    """Print what a request changed; exit code 1 where it was not done to all that was meant."""
    text, word = row["text"], _DONE[verb]
    if json:
        print_rows([row])
    elif row["changed"] and row["queue_id"]:
        print(f"{row['queue_id']} is {word}.")
    elif row["already"] and row["queue_id"]:
        print(f"{text}.")
    elif not row["queue_id"]:
        mails = "1 mail is" if row["changed"] == 1 else f"{row['changed']} mails are"
        print(f"{mails} {word}.")
    if row["queue_id"] and row["unchanged"] + row["busy"]:
        fail(text, 1)
    if row["busy"]:
        fail(f"{row['busy']} more could not be {word} just now: ask again", 1)


async def print_all(config: Config, path: str, of: str | None) -> None:
    """Print every row of the queue or the vault (`of`: a domain) as JSON, a page at a time."""
    after: list[Any] | None = None
    async with calling(config, running=False) as client:
        while True:
            cursor = None if after is None else f"{after[0]!r},{after[1]}"
            page = await call(client, "GET", path, None, only(domain=of, limit=PAGE, after=cursor))
            print_rows(page["rows"])
            after = page["after"]
            if after is None:
                return
