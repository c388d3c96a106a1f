"""The commands about mail that a person decides about: `vault`."""

from typing import Annotated
from urllib.parse import quote

import typer

from libs.runtime.terminal import AsJson, fail, print_rows
from services.control.caller import ask
from services.control.doing import (
    Id,
    OfDomain,
    OfRecipient,
    OfSender,
    Older,
    Yes,
    do_to_mails,
    print_all,
    say_done,
    wanted,
)
from services.control.door import PAGE
from services.control.queue import mail_id
from services.control.terminal import (
    DEFAULT_CONFIG,
    ConfigFile,
    by_whom,
    columns,
    configured,
    console,
    formed,
    only,
    print_mail,
    print_total,
    run,
    sure,
    when,
)

vault = typer.Typer(
    no_args_is_help=True, help="Mail that nobody could be told of, that lost its content or cannot be read."
)


@vault.command("list")
def vault_list(
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    of: OfDomain = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many (with --json: all).")] = 50,
) -> None:
    """What is in the vault, oldest first.

    Example: backupmx vault list --domain office.example"""
    settings = configured(config)
    if json:
        run(print_all(settings, "/vault", of))
        return
    page = run(ask(settings, "GET", "/vault", params=only(domain=of, limit=min(limit, PAGE))))
    if not page["total"]:
        print("The vault is empty.")
        return
    table = columns("id", "domain", "arrived", "state", "sender", "recipient", "cause", "ends")
    for row in page["rows"]:
        first, *others = row["recipients"] or [{"address": ""}]
        table.add_row(
            row["queue_id"],
            row["domain"],
            when(row["arrival_time"]),
            row["queue_name"],
            row["sender"],
            first["address"] + (f" and {len(others)} more" if others else ""),
            row["cause"],
            when(row["until"]),
        )
    console().print(table)
    print_total(page)


@vault.command("show")
def vault_show(id: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:  # noqa: A002
    """One of them.

    Example: backupmx vault show abcdefghijklmnopqrstuvwx"""
    row = run(ask(configured(config), "GET", f"/vault/{quote(id, '')}"))
    if json:
        print_rows([row])
        return
    print_mail(row)


@vault.command("redeliver")
def vault_redeliver(
    id: Id = None,  # noqa: A002
    of: OfDomain = None,
    sender: OfSender = None,
    recipient: OfRecipient = None,
    older: Older = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
) -> None:
    """Take parked mail up again, as if it had not failed.

    Example: backupmx vault redeliver abcdefghijklmnopqrstuvwx"""
    which = wanted("redeliver", id, of, sender, recipient, older)
    do_to_mails("redeliver", which, configured(config), json=json)


@vault.command("delete")
def vault_delete(
    id: str,  # noqa: A002
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Delete one of them for ever, read or not.

    Example: backupmx vault delete abcdefghijklmnopqrstuvwx --yes"""
    formed(mail_id, id)
    settings = configured(config)
    if not yes and not sure(f"Delete mail {id} for ever?"):
        fail("nothing is deleted", 1)
    row = run(ask(settings, "POST", f"/vault/{quote(id, '')}/delete", {"by": by_whom()}, running=True))
    say_done("delete", row, json=json)
