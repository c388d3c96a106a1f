"""The commands that a postmaster types: `domain`, `suspend`, `resume`, `access`, `trace`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from libs.mail.notice import is_url
from libs.runtime.terminal import AsJson, fail, print_rows
from services.control import access as permissions
from services.control.caller import ask
from services.control.cli_apply import apply, export
from services.control.cli_doctor import doctor, print_lights
from services.control.cli_recipients import recipients
from services.control.cli_remove import erase, remove
from services.control.cli_timeline import timeline
from services.control.terminal import (
    DEFAULT_CONFIG,
    ConfigFile,
    by_whom,
    columns,
    configured,
    console,
    do_to_domain,
    formed,
    named_domain,
    only,
    print_pairs,
    run,
    when,
)

domain = typer.Typer(no_args_is_help=True, help="The relay domains.")
domain.add_typer(recipients, name="recipients")
domain.command("doctor")(doctor)
domain.command("apply")(apply)
domain.command("export")(export)
domain.command("timeline")(timeline)
domain.command("remove")(remove)
domain.command("erase")(erase)
access = typer.Typer(no_args_is_help=True, help="Who may send mail here, and who may not.")

# Text as it was typed: the service says what is wrong with it.
AdmissionOption = Annotated[str | None, typer.Option(help="always, fallback (see docs/domain-owner.md).")]
UnverifiedOption = Annotated[str | None, typer.Option(help="accept, defer: who cannot be asked for.")]
EnforceOption = Annotated[str | None, typer.Option(help="off, dmarc, spf: which failed mail is refused.")]
LanguageOption = Annotated[str | None, typer.Option(help="en, de: of notices.")]
ContactOption = Annotated[
    str | None,
    typer.Option(
        help="Who is told of outages and undeliverable mail: an address elsewhere, or an https:// URL."
    ),
]
SecretOption = Annotated[
    str | None, typer.Option(help="Signs what is posted to that URL, whsec_...; made where not given.")
]
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
    look: Annotated[
        bool | None, typer.Option("--look/--no-look", help="Examine it, too; else only on a terminal.")
    ] = None,
    admission: AdmissionOption = None,
    unverified: UnverifiedOption = None,
    enforce: EnforceOption = None,
    language: LanguageOption = None,
    contact: ContactOption = None,
    contact_secret: SecretOption = None,
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
    """Take mail for a domain, as soon as its DNS names us; show what it still lacks.

    Example: backupmx domain add office.example --contact owner@elsewhere.example"""
    settings = configured(config)
    given = only(
        admission=admission,
        unverified=unverified,
        enforce=enforce,
        language=language,
        contact=contact,
        contact_secret=contact_secret,
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
        return
    if row["state"] == "pending":
        hosts = " or ".join(settings.installation.hosts)
        every = f"{settings.timing.pending_check_s:g}"
        print(
            f"{row['domain']} is pending: mail for it is taken once its MX records name {hosts}, with a "
            f"higher number than its own server; that is looked up again every {every} s. What is missing: "
            f"backupmx domain doctor {row['domain']}"
        )
    else:
        print(f"{row['domain']} is {row['state']}: mail for it is taken from now on.")
    _say_secret(row["domain"], given)
    if look or (look is None and sys.stdout.isatty()):
        print()
        said = {"language": language or "en"}
        print_lights(run(ask(settings, "GET", f"/domains/{row['domain']}/doctor", params=said)))


@domain.command("set")
def domain_set(
    name: str,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    admission: AdmissionOption = None,
    unverified: UnverifiedOption = None,
    enforce: EnforceOption = None,
    language: LanguageOption = None,
    contact: ContactOption = None,
    contact_secret: SecretOption = None,
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
    """Give a domain settings of its own; `default` takes one back.

    Example: backupmx domain set office.example --lifetime-days 10 --enforce default"""
    given = only(
        admission=admission,
        unverified=unverified,
        enforce=enforce,
        language=language,
        contact=contact,
        contact_secret=contact_secret,
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
        _say_secret(row["domain"], given)


def _say_secret(name: str, given: Mapping[str, str]) -> None:
    if is_url(given.get("contact", "")):
        print(f"What is posted there is signed with contact_secret: backupmx domain show {name}")


@domain.command("list")
def domain_list(config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """All relay domains.

    Example: backupmx domain list --json"""
    rows = run(ask(configured(config), "GET", "/domains"))
    if json:
        print_rows(rows)
    elif not rows:
        print("There is no relay domain yet: backupmx domain add NAME")
    else:
        table = columns("domain", "state", "primary", "since", "waiting", "findings")
        for row in rows:
            since = when(row["primary_since"])
            table.add_row(
                row["domain"], row["state"], row["primary"], since, str(row["waiting"]), _found(row)
            )
        console().print(table)


def _found(row: dict[str, Any]) -> str:
    """What the last examination found: domain doctor --last."""
    if not row["examined"]:
        return ""
    counted = [f"{row[each]} {each}" for each in ("wrong", "warnings") if row[each]]
    return ", ".join(counted) or "none"


@domain.command("show")
def domain_show(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """All that is known of one.

    Example: backupmx domain show office.example"""
    row = run(ask(configured(config), "GET", f"/domains/{named_domain(name)}"))
    if json:
        print_rows([row])
        return
    row |= row.pop("settings")
    for key in ("added", "examined", "active_since", "primary_since", "callouts_since", "oldest"):
        row[key] = when(row[key])
    print_pairs(row)


@domain.command("release")
def domain_release(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """End the brakes: what the primary says of its recipients is believed again.

    Example: backupmx domain release office.example"""
    do_to_domain("release", name, config, json=json)


def suspend(
    name: str,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    accept: Annotated[bool, typer.Option("--accept", help="Go on taking mail; hand none over.")] = False,
) -> None:
    """Take no more mail for a domain for now (451), and hand over none; its primary is not dialled.

    Example: backupmx suspend office.example"""
    row = _stop(name, "held" if accept else "suspended", config)
    if json:
        print_rows([row])
    elif accept:
        print(f"{row['domain']} is held: its mail is taken and waits; backupmx resume {row['domain']}")
    else:
        print(f"{row['domain']} is suspended: its senders try again later; backupmx resume {row['domain']}")


def resume(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Take mail for a domain, and hand it over, again.

    Example: backupmx resume office.example"""
    row = _stop(name, "active", config)
    if json:
        print_rows([row])
    else:
        print(f"{row['domain']} is {row['state']} again.")


def _stop(name: str, how: str, config: Path) -> Any:
    body = {"how": how, "by": by_whom()}
    return run(ask(configured(config), "POST", f"/domains/{named_domain(name)}/stop", body))


For = Annotated[
    str | None, typer.Option("--for", help="How long: 90s, 15m, 2h, 7d; for ever where not given.")
]


@access.command("block")
def access_block(
    subject: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False, lasts: For = None
) -> None:
    """Take no connection from an IP address or network, or no mail from a sender or @domain.

    Example: backupmx access block 192.0.2.0/24 --for 2h"""
    _permit("block", subject, lasts, config, json=json)


@access.command("allow")
def access_allow(
    subject: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False, lasts: For = None
) -> None:
    """Exempt an IP address or network from limits; take mail from a sender whose domain is blocked.

    Example: backupmx access allow 192.0.2.25"""
    _permit("allow", subject, lasts, config, json=json)


@access.command("list")
def access_list(config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Whom you blocked and allowed.

    Example: backupmx access list"""
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
    """Neither block nor allow it any more.

    Example: backupmx access remove 192.0.2.0/24"""
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


def trace(
    id: Annotated[str | None, typer.Argument(help="Of a mail.")] = None,  # noqa: A002
    address: Annotated[str | None, typer.Option(help="All that names it as sender or recipient.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
) -> None:
    """What happened to a mail, or to all mail of an address, within the days that events are kept.

    Example: backupmx trace --address ann@office.example --json"""
    if (id is None) == (address is None):
        fail("say which mail: an id, or --address", 2)
    settings = configured(config)
    if id is not None:
        events = run(ask(settings, "GET", f"/trace/{quote(id, '')}"))
    else:
        events = run(ask(settings, "GET", "/trace", params={"address": address}))
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
