"""The commands that a postmaster types: `domain`, `queue`, `access`, `trace`."""

import asyncio
import getpass
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import quote

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from libs.log.contract import LogError
from libs.runtime.config import Config
from libs.runtime.config_file import load
from libs.runtime.mistake import Wrong
from services.control import access as permissions
from services.control.caller import Failed, ask, call, calling
from services.control.desk import PAGE
from services.control.domains import Malformed, named

T = TypeVar("T")

domain = typer.Typer(no_args_is_help=True, help="The relay domains.")
access = typer.Typer(no_args_is_help=True, help="Who may send mail here, and who may not.")
queue = typer.Typer(no_args_is_help=True, help="The mail that waits.")

ConfigFile = Annotated[
    Path, typer.Option("--config", envvar="BACKUPMX_CONFIG", help="The configuration file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
DEFAULT_CONFIG = Path("/etc/backupmx.toml")
# Text as it was typed: the service says what is wrong with it.
AdmissionOption = Annotated[str | None, typer.Option(help="always, fallback (see docs/domain-owner.md).")]
UnverifiedOption = Annotated[str | None, typer.Option(help="accept, defer: who cannot be asked for.")]
MaxSizeOption = Annotated[str | None, typer.Option(help="Octets of a mail.")]
LifetimeOption = Annotated[str | None, typer.Option(help="How long mail waits, at most 30.")]
WaitingOption = Annotated[str | None, typer.Option(help="Mails that may wait for it.")]
WaitingSizeOption = Annotated[str | None, typer.Option(help="Octets that may wait for it.")]
ConnectionsOption = Annotated[str | None, typer.Option(help="At once to its primary.")]


# --- the commands ---


@domain.command("add")
def domain_add(
    name: str,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    admission: AdmissionOption = None,
    unverified: UnverifiedOption = None,
    max_size: MaxSizeOption = None,
    lifetime_days: LifetimeOption = None,
    max_connections: ConnectionsOption = None,
    max_waiting: WaitingOption = None,
    max_waiting_size: WaitingSizeOption = None,
) -> None:
    """Take mail for a domain, as soon as its DNS names us."""
    settings = configured(config)
    given = _only(
        admission=admission,
        unverified=unverified,
        max_size=max_size,
        lifetime_days=lifetime_days,
        max_connections=max_connections,
        max_waiting=max_waiting,
        max_waiting_size=max_waiting_size,
    )
    row = _run(ask(settings, "POST", "/domains", {"domain": name} | given))
    if json:
        _lines([row])
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
    max_size: MaxSizeOption = None,
    lifetime_days: LifetimeOption = None,
    max_connections: ConnectionsOption = None,
    max_waiting: WaitingOption = None,
    max_waiting_size: WaitingSizeOption = None,
) -> None:
    """Give a domain settings of its own; `default` takes one back."""
    given = _only(
        admission=admission,
        unverified=unverified,
        max_size=max_size,
        lifetime_days=lifetime_days,
        max_connections=max_connections,
        max_waiting=max_waiting,
        max_waiting_size=max_waiting_size,
    )
    row = _run(ask(configured(config), "PATCH", f"/domains/{_named(name)}", given))
    if json:
        _lines([row])
    else:
        print(f"{row['domain']}: " + ", ".join(f"{each} {value}" for each, value in given.items()))


@domain.command("list")
def domain_list(config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """All relay domains."""
    rows = _run(ask(configured(config), "GET", "/domains"))
    if json:
        _lines(rows)
    elif not rows:
        print("There is no relay domain yet: backupmx domain add NAME")
    else:
        table = _table("domain", "state", "primary", "since", "waiting")
        for row in rows:
            since = _time(row["primary_since"])
            table.add_row(row["domain"], row["state"], row["primary"], since, str(row["waiting"]))
        _console().print(table)


@domain.command("show")
def domain_show(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """All that is known of one."""
    row = _run(ask(configured(config), "GET", f"/domains/{_named(name)}"))
    if json:
        _lines([row])
        return
    row |= row.pop("settings")
    for key in ("added", "active_since", "primary_since", "oldest"):
        row[key] = _time(row[key])
    _pairs(row)


@domain.command("remove")
def domain_remove(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Take no more mail for a domain; refused while mail for it waits."""
    row = _run(ask(configured(config), "DELETE", f"/domains/{_named(name)}"))
    if json:
        _lines([row])
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
        _run(_all_rows(settings, of))
        return
    page = _run(ask(settings, "GET", "/queue", params=_only(domain=of, limit=min(limit, PAGE))))
    if not page["total"]:
        print("The queue is empty.")
        return
    table = _table("id", "size", "arrived", "state", "sender", "recipient", "reason")
    for row in page["rows"]:
        first, *others = row["recipients"] or [{"address": "", "delay_reason": ""}]
        table.add_row(
            row["queue_id"],
            str(row["message_size"]),
            _time(row["arrival_time"]),
            row["queue_name"],
            row["sender"] or "<>",
            first["address"] + (f" and {len(others)} more" if others else ""),
            first["delay_reason"],
        )
    _console().print(table)
    total = f"{page['total']} mail" + ("" if page["total"] == 1 else "s")
    print(f"{len(page['rows'])} of {total}" if page["after"] else total)


@queue.command("show")
def queue_show(id: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:  # noqa: A002
    """One mail in the queue."""
    row = _run(ask(configured(config), "GET", f"/queue/{quote(id, '')}"))
    if json:
        _lines([row])
        return
    for key in ("arrival_time", "next_attempt"):
        row[key] = _time(row[key])
    recipients = row.pop("recipients")
    _pairs(row)
    for each in recipients:
        print(
            f"recipient: {each['address']}" + (f" ({each['delay_reason']})" if each["delay_reason"] else "")
        )


@queue.command("flush")
def queue_flush(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Try the mail of a domain now, whatever its primary last said."""
    body = {"by": _by()}
    row = _run(ask(configured(config), "POST", f"/domains/{_named(name)}/flush", body, running=True))
    if json:
        _lines([row])
    else:
        print(f"{row['domain']}: {row['text']}")


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
    rows = _run(ask(configured(config), "GET", "/access"))
    if json:
        _lines(rows)
    elif not rows:
        print("Nobody is blocked or allowed: backupmx access block IP|SENDER")
    else:
        table = _table("subject", "rule", "since", "until", "by")
        for row in rows:
            since, until = _time(row["since"]), _time(row["until"])
            table.add_row(row["subject"], row["rule"], since, until, row["by"])
        _console().print(table)


@access.command("remove")
def access_remove(subject: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """Neither block nor allow it any more."""
    body = {"subject": _formed(permissions.subject, subject), "by": _by()}
    row = _run(ask(configured(config), "POST", "/access/remove", body))
    if json:
        _lines([row])
    else:
        print(f"{row['subject']} is neither blocked nor allowed any more.")


def _permit(rule: str, subject: str, lasts: str | None, config: Path, *, json: bool) -> None:
    body = {"rule": rule, "subject": _formed(permissions.subject, subject), "by": _by()}
    if lasts is not None:
        _formed(permissions.duration_s, lasts)
        body["for"] = lasts
    row = _run(ask(configured(config), "POST", "/access", body))
    if json:
        _lines([row])
    else:
        until = f" until {_time(row['until'])}" if row["until"] else ""
        print(f"{row['subject']} is {rule}ed{until}.")


def trace(id: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:  # noqa: A002
    """What happened to a mail."""
    events = _run(ask(configured(config), "GET", f"/trace/{quote(id, '')}"))
    if json:
        _lines(events)
        return
    table = _table("time", "event", "service", "recipient", "reply")
    for event in events:
        response = event.get("response", {})
        reply = " ".join(str(response.get(part, "")) for part in ("code", "enhanced_code", "content"))
        table.add_row(
            _time(event["event_time"]),
            event["type"],
            f"{event['service']} on {event['host']}",
            event.get("recipient", ""),
            reply.strip() or event.get("text", ""),
        )
    _console().print(table)


async def _all_rows(config: Config, of: str | None) -> None:
    """Print every row of the queue, a page at a time."""
    after: list[Any] | None = None
    async with calling(config, running=False) as client:
        while True:
            cursor = None if after is None else f"{after[0]!r},{after[1]}"
            page = await call(client, "GET", "/queue", None, _only(domain=of, limit=PAGE, after=cursor))
            _lines(page["rows"])
            after = page["after"]
            if after is None:
                return


# --- helpers of the commands ---


def configured(path: Path) -> Config:
    """The configuration; a sentence and exit code 2 where it is wrong."""
    try:
        return load(path)
    except Wrong as error:
        fail(str(error), 2)


def _named(name: str) -> str:
    """The domain that was typed, in normal form."""
    return _formed(named, name)


def _formed(read: Callable[[str], T], typed: str) -> T:
    """What was typed, as `read` has it."""
    try:
        return read(typed)
    except Malformed as error:
        fail(str(error), 2)


def _by() -> str:
    """Who asks."""
    return f"{getpass.getuser()} (command line)"


def _run(asking: Coroutine[None, None, T]) -> T:
    """The result; a sentence and the exit code where there is none."""
    try:
        return asyncio.run(asking)
    except Failed as error:
        fail(str(error), error.code)
    except LogError as error:
        fail(f"the log: {error}", 1)


def fail(sentence: str, code: int) -> NoReturn:
    """Say it on standard error and leave."""
    print(f"backupmx: {sentence}", file=sys.stderr)
    raise typer.Exit(code)


def _lines(rows: list[Any]) -> None:
    for each in rows:
        print(msgspec.json.encode(each).decode())


def _only(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _console() -> Console:
    """As wide as the terminal; what goes into a pipe is not cut to 80 columns."""
    return Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _pairs(row: dict[str, Any]) -> None:
    for name, value in row.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name.replace('_', ' ')}: {shown if shown != '' else '-'}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if seconds else "-"
