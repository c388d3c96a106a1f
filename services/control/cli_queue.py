"""The commands about the mail that waits: `queue`."""

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
    wanted,
    which_text,
)
from services.control.door import PAGE
from services.control.terminal import (
    DEFAULT_CONFIG,
    ConfigFile,
    columns,
    configured,
    console,
    do_to_domain,
    only,
    print_mail,
    print_total,
    run,
    sure,
    when,
)

queue = typer.Typer(no_args_is_help=True, help="The mail that waits.")


@queue.command("list")
def queue_list(
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    of: Annotated[str | None, typer.Option("--domain", help="Only the mail of this domain.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many (with --json: all).")] = 50,
) -> None:
    """The mail in the queue, oldest first.

    Example: backupmx queue list --domain office.example"""
    settings = configured(config)
    if json:
        run(print_all(settings, "/queue", of))
        return
    page = run(ask(settings, "GET", "/queue", params=only(domain=of, limit=min(limit, PAGE))))
    if not page["total"]:
        print("The queue is empty.")
        return
    table = columns("id", "size", "arrived", "state", "sender", "recipient", "reason")
    for row in page["rows"]:
        first, *others = row["recipients"] or [{"address": "", "delay_reason": ""}]
        table.add_row(
            row["queue_id"],
            str(row["message_size"]),
            when(row["arrival_time"]),
            row["queue_name"],
            row["sender"] or "<>",
            first["address"] + (f" and {len(others)} more" if others else ""),
            first["delay_reason"],
        )
    console().print(table)
    print_total(page)


@queue.command("show")
def queue_show(id: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:  # noqa: A002
    """One mail in the queue.

    Example: backupmx queue show abcdefghijklmnopqrstuvwx"""
    row = run(ask(configured(config), "GET", f"/queue/{quote(id, '')}"))
    if json:
        print_rows([row])
        return
    print_mail(row)


@queue.command("flush")
def queue_flush(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Try the mail of a domain now, whatever its primary last said.

    Example: backupmx queue flush office.example"""
    do_to_domain("flush", name, config, json=json)


@queue.command("retry")
def queue_retry(
    id: Id = None,  # noqa: A002
    of: OfDomain = None,
    sender: OfSender = None,
    recipient: OfRecipient = None,
    older: Older = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
) -> None:
    """Try deferred mail now; its count of attempts stays.

    Example: backupmx queue retry --domain office.example"""
    which = wanted("retry", id, of, sender, recipient, older)
    do_to_mails("retry", which, configured(config), json=json)


@queue.command("hold")
def queue_hold(
    id: Id = None,  # noqa: A002
    of: OfDomain = None,
    sender: OfSender = None,
    recipient: OfRecipient = None,
    older: Older = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
) -> None:
    """Attempt no more until it is released; it does not expire meanwhile.

    Example: backupmx queue hold --domain office.example --older 2h"""
    which = wanted("hold", id, of, sender, recipient, older)
    do_to_mails("hold", which, configured(config), json=json)


@queue.command("release")
def queue_release(
    id: Id = None,  # noqa: A002
    of: OfDomain = None,
    sender: OfSender = None,
    recipient: OfRecipient = None,
    older: Older = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
) -> None:
    """Let held mail be delivered after all.

    Example: backupmx queue release abcdefghijklmnopqrstuvwx"""
    which = wanted("release", id, of, sender, recipient, older)
    do_to_mails("release", which, configured(config), json=json)


@queue.command("delete")
def queue_delete(
    id: Id = None,  # noqa: A002
    of: OfDomain = None,
    sender: OfSender = None,
    recipient: OfRecipient = None,
    older: Older = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Delete mail for ever, undelivered; nobody is told.

    Example: backupmx queue delete --sender @spammer.example --yes"""
    which = wanted("delete", id, of, sender, recipient, older)
    settings = configured(config)
    if not yes and not sure(f"Delete {which_text(which)} for ever?"):
        fail("nothing is deleted", 1)
    do_to_mails("delete", which, settings, json=json)


@queue.command("bounce")
def queue_bounce(
    id: Id = None,  # noqa: A002
    of: OfDomain = None,
    sender: OfSender = None,
    recipient: OfRecipient = None,
    older: Older = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Give mail up now; its senders are told, as far as they may be.

    Example: backupmx queue bounce --recipient bob@office.example --yes"""
    which = wanted("bounce", id, of, sender, recipient, older)
    settings = configured(config)
    if not yes and not sure(f"Give {which_text(which)} up, and tell its senders?"):
        fail("nothing is given up", 1)
    do_to_mails("bounce", which, settings, json=json)
