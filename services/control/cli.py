"""The commands that a postmaster types: `domain`, `queue`, `access`, `trace`."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from libs.runtime.config import Config
from libs.runtime.terminal import AsJson, fail, print_rows
from services.control import access as permissions
from services.control.caller import ask, call, calling
from services.control.cli_recipients import recipients
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
    named_domain,
    only,
    print_pairs,
    run,
    sure,
    when,
)

domain = typer.Typer(no_args_is_help=True, help="The relay domains.")
domain.add_typer(recipients, name="recipients")
access = typer.Typer(no_args_is_help=True, help="Who may send mail here, and who may not.")
queue = typer.Typer(no_args_is_help=True, help="The mail that waits.")

# Text as it was typed: the service says what is wrong with it.
AdmissionOption = Annotated[str | None, typer.Option(help="always, fallback (see docs/domain-owner.md).")]
UnverifiedOption = Annotated[str | None, typer.Option(help="accept, defer: who cannot be asked for.")]
EnforceOption = Annotated[str | None, typer.Option(help="off, dmarc, spf: which failed mail is refused.")]
MaxSizeOption = Annotated[str | None, typer.Option(help="Octets of a mail.")]
LifetimeOption = Annotated[str | None, typer.Option(help="How long mail waits, at most 30.")]
WaitingOption = Annotated[str | None, typer.Option(help="Mails that may wait for it.")]
WaitingSizeOption = Annotated[str | None, typer.Option(help="Octets that may wait for it.")]
ConnectionsOption = Annotated[str | None, typer.Option(help="At once to its primary.")]
RateOption = Annotated[str | None, typer.Option(help="Mails a minute to its primary.")]
PrimaryOption = Annotated[
    str | None, typer.Option(help="Where its primary is, HOST[:PORT], whatever its MX records say.")
]
TlsNameOption = Annotated[
    str | None, typer.Option(help="The name in its primary's certificate: TLS is a must.")
]
XclientOption = Annotated[str | None, typer.Option(help="on, off: tell its primary whose mail it gets.")]


@domain.command("add")
def domain_add(
    name: str,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    admission: AdmissionOption = None,
    unverified: UnverifiedOption = None,
    enforce: EnforceOption = None,
    max_size: MaxSizeOption = None,
    lifetime_days: LifetimeOption = None,
    max_connections: ConnectionsOption = None,
    max_waiting: WaitingOption = None,
    max_waiting_size: WaitingSizeOption = None,
    max_rate: RateOption = None,
    primary_host: PrimaryOption = None,
    tls_name: TlsNameOption = None,
    xclient: XclientOption = None,
) -> None:
    """Take mail for a domain, as soon as its DNS names us."""
    settings = configured(config)
    given = only(
        admission=admission,
        unverified=unverified,
        enforce=enforce,
        max_size=max_size,
        lifetime_days=lifetime_days,
        max_connections=max_connections,
        max_waiting=max_waiting,
        max_waiting_size=max_waiting_size,
        max_rate=max_rate,
        primary_host=primary_host,
        tls_name=tls_name,
        xclient=xclient,
    )
    row = run(ask(settings, "POST", "/domains", {"domain": name} | given))
    if json:
        print_rows([row])
    elif row["state"] == "pending":
        hosts = " or ".join(settings.installation.hosts)
        every = f"{settings.timing.pending_check_s:g}"
        print(
            f"{row['domain']} is pending: mail for it is taken once its MX records name {hosts}, with a "
            f"higher number than its own server; that is looked up again every {every} s."
        )
    else:
        print(f"{row['domain']} is {row['state']}: mail for it is taken from now on.")


@domain.command("set")
def domain_set(
    name: str,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    admission: AdmissionOption = None,
    unverified: UnverifiedOption = None,
    enforce: EnforceOption = None,
    max_size: MaxSizeOption = None,
    lifetime_days: LifetimeOption = None,
    max_connections: ConnectionsOption = None,
    max_waiting: WaitingOption = None,
    max_waiting_size: WaitingSizeOption = None,
    max_rate: RateOption = None,
    primary_host: PrimaryOption = None,
    tls_name: TlsNameOption = None,
    xclient: XclientOption = None,
) -> None:
    """Give a domain settings of its own; `default` takes one back."""
    given = only(
        admission=admission,
        unverified=unverified,
        enforce=enforce,
        max_size=max_size,
        lifetime_days=lifetime_days,
        max_connections=max_connections,
        max_waiting=max_waiting,
        max_waiting_size=max_waiting_size,
        max_rate=max_rate,
        primary_host=primary_host,
        tls_name=tls_name,
        xclient=xclient,
    )
    row = run(ask(configured(config), "PATCH", f"/domains/{named_domain(name)}", given))
    if json:
        print_rows([row])
    else:
        print(f"{row['domain']}: " + ", ".join(f"{each} {value}" for each, value in given.items()))


@domain.command("list")
def domain_list(config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """All relay domains."""
    rows = run(ask(configured(config), "GET", "/domains"))
    if json:
        print_rows(rows)
    elif not rows:
        print("There is no relay domain yet: backupmx domain add NAME")
    else:
        table = columns("domain", "state", "primary", "since", "waiting")
        for row in rows:
            since = when(row["primary_since"])
            table.add_row(row["domain"], row["state"], row["primary"], since, str(row["waiting"]))
        console().print(table)


@domain.command("show")
def domain_show(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """All that is known of one."""
    row = run(ask(configured(config), "GET", f"/domains/{named_domain(name)}"))
    if json:
        print_rows([row])
        return
    row |= row.pop("settings")
    for key in ("added", "active_since", "primary_since", "callouts_since", "oldest"):
        row[key] = when(row[key])
    print_pairs(row)


@domain.command("release")
def domain_release(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """End the callout brake: what the primary says of its recipients is believed again."""
    _do_to_domain("release", name, config, json=json)


@domain.command("remove")
def domain_remove(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Take no more mail for a domain; refused while mail for it waits."""
    row = run(ask(configured(config), "DELETE", f"/domains/{named_domain(name)}"))
    if json:
        print_rows([row])
    else:
        print(f"{row['domain']} is removed.")


@queue.command("list")
def queue_list(
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    of: Annotated[str | None, typer.Option("--domain", help="Only the mail of this domain.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many (with --json: all).")] = 50,
) -> None:
    """The mail in the queue, oldest first."""
    settings = configured(config)
    if json:
        run(_all_rows(settings, of))
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
    total = f"{page['total']} mail" + ("" if page["total"] == 1 else "s")
    print(f"{len(page['rows'])} of {total}" if page["after"] else total)


@queue.command("show")
def queue_show(id: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:  # noqa: A002
    """One mail in the queue."""
    row = run(ask(configured(config), "GET", f"/queue/{quote(id, '')}"))
    if json:
        print_rows([row])
        return
    for key in ("arrival_time", "next_attempt"):
        row[key] = when(row[key])
    recipients = row.pop("recipients")
    print_pairs(row)
    for each in recipients:
        print(
            f"recipient: {each['address']}" + (f" ({each['delay_reason']})" if each["delay_reason"] else "")
        )


@queue.command("flush")
def queue_flush(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Try the mail of a domain now, whatever its primary last said."""
    _do_to_domain("flush", name, config, json=json)


@queue.command("release")
def queue_release(id: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:  # noqa: A002
    """Let a held mail be delivered after all."""
    _do_to_mail("release", formed(mail_id, id), configured(config), json=json)


@queue.command("delete")
def queue_delete(
    id: str,  # noqa: A002
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether you are sure.")] = False,
) -> None:
    """Delete a mail for ever, undelivered; nobody is told."""
    formed(mail_id, id)
    settings = configured(config)
    if not yes and not sure(f"Delete mail {id} for ever?"):
        fail("nothing is deleted", 1)
    _do_to_mail("delete", id, settings, json=json)


def _do_to_domain(verb: str, name: str, config: Path, *, json: bool) -> None:
    body = {"by": by_whom()}
    row = run(ask(configured(config), "POST", f"/domains/{named_domain(name)}/{verb}", body, running=True))
    if json:
        print_rows([row])
    else:
        print(f"{row['domain']}: {row['text']}")


def _do_to_mail(verb: str, id_: str, settings: Config, *, json: bool) -> None:
    row = run(ask(settings, "POST", f"/queue/{id_}/{verb}", {"by": by_whom()}, running=True))
    if json:
        print_rows([row])
    else:
        print(f"{row['queue_id']} is {verb}d.")


For = Annotated[
    str | None, typer.Option("--for", help="How long: 90s, 15m, 2h, 7d; for ever where not given.")
]


@access.command("block")
def access_block(
    subject: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False, lasts: For = None
) -> None:
    """Take no connection from an IP address or network, or no mail from a sender or @domain."""
    _permit("block", subject, lasts, config, json=json)


@access.command("allow")
def access_allow(
    subject: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False, lasts: For = None
) -> None:
    """Exempt an IP address or network from limits; take mail from a sender whose domain is blocked."""
    _permit("allow", subject, lasts, config, json=json)


@access.command("list")
def access_list(config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Whom you blocked and allowed."""
    rows = run(ask(configured(config), "GET", "/access"))
    if json:
        print_rows(rows)
    elif not rows:
        print("Nobody is blocked or allowed: backupmx access block IP|SENDER")
    else:
        table = columns("subject", "rule", "since", "until", "by")
        for row in rows:
            since, until = when(row["since"]), when(row["until"])
            table.add_row(row["subject"], row["rule"], since, until, row["by"])
        console().print(table)


@access.command("remove")
def access_remove(subject: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Neither block nor allow it any more."""
    body = {"subject": formed(permissions.subject, subject), "by": by_whom()}
    row = run(ask(configured(config), "POST", "/access/remove", body))
    if json:
        print_rows([row])
    else:
        print(f"{row['subject']} is neither blocked nor allowed any more.")


def _permit(rule: str, subject: str, lasts: str | None, config: Path, *, json: bool) -> None:
    body = {"rule": rule, "subject": formed(permissions.subject, subject), "by": by_whom()}
    if lasts is not None:
        formed(permissions.duration_s, lasts)
        body["for"] = lasts
    row = run(ask(configured(config), "POST", "/access", body))
    if json:
        print_rows([row])
    else:
        until = f" until {when(row['until'])}" if row["until"] else ""
        print(f"{row['subject']} is {rule}ed{until}.")


def trace(id: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:  # noqa: A002
    """What happened to a mail."""
    events = run(ask(configured(config), "GET", f"/trace/{quote(id, '')}"))
    if json:
        print_rows(events)
        return
    table = columns("time", "event", "service", "recipient", "reply")
    for event in events:
        response = event.get("response", {})
        reply = " ".join(str(response.get(part, "")) for part in ("code", "enhanced_code", "content"))
        table.add_row(
            when(event["event_time"]),
            event["type"],
            f"{event['service']} on {event['host']}",
            event.get("recipient", ""),
            reply.strip() or event.get("text", ""),
        )
    console().print(table)


async def _all_rows(config: Config, of: str | None) -> None:
    """Print every row of the queue, a page at a time."""
    after: list[Any] | None = None
    async with calling(config, running=False) as client:
        while True:
            cursor = None if after is None else f"{after[0]!r},{after[1]}"
            page = await call(client, "GET", "/queue", None, only(domain=of, limit=PAGE, after=cursor))
            print_rows(page["rows"])
            after = page["after"]
            if after is None:
                return
