"""The commands that a postmaster types: `domain`, `queue`, `trace`.

They speak to the control of the running service over its Unix socket. Where none runs and the log is the
embedded one, they take that log themselves and ask the same application in this process.
"""

import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from libs.log.contract import LogError
from libs.log.open import open_sqlite
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config, Wrong, load
from libs.runtime.deps import Deps
from libs.runtime.dns import Dns
from libs.runtime.events import Events
from libs.runtime.metrics import Metrics
from libs.runtime.run import CannotStart
from services.control.api import application
from services.control.desk import ANSWER_S, PAGE, Desk
from services.control.domains import Malformed, named
from services.control.register import WITHIN_S
from services.control.service import SOCKET

T = TypeVar("T")

domain = typer.Typer(no_args_is_help=True, help="The relay domains.")
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
ConnectionsOption = Annotated[str | None, typer.Option(help="At once to its primary.")]


class Failed(Exception):  # noqa: N818
    """What the person reads, in one sentence, and the exit code: 1 not done, 2 wrong use or configuration."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


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
) -> None:
    """Take mail for a domain, as soon as its DNS names us."""
    settings = _settings(config)
    given = _only(
        admission=admission,
        unverified=unverified,
        max_size=max_size,
        lifetime_days=lifetime_days,
        max_connections=max_connections,
    )
    row = _run(_ask(settings, "POST", "/domains", {"domain": name} | given))
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
) -> None:
    """Give a domain settings of its own; `default` takes one back."""
    given = _only(
        admission=admission,
        unverified=unverified,
        max_size=max_size,
        lifetime_days=lifetime_days,
        max_connections=max_connections,
    )
    row = _run(_ask(_settings(config), "PATCH", f"/domains/{_named(name)}", given))
    if json:
        _lines([row])
    else:
        print(f"{row['domain']}: " + ", ".join(f"{each} {value}" for each, value in given.items()))


@domain.command("list")
def domain_list(config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """All relay domains."""
    rows = _run(_ask(_settings(config), "GET", "/domains"))
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
    row = _run(_ask(_settings(config), "GET", f"/domains/{_named(name)}"))
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
    row = _run(_ask(_settings(config), "DELETE", f"/domains/{_named(name)}"))
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
    settings = _settings(config)
    if json:
        _run(_all_rows(settings, of))
        return
    page = _run(_ask(settings, "GET", "/queue", params=_only(domain=of, limit=min(limit, PAGE))))
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
    row = _run(_ask(_settings(config), "GET", f"/queue/{quote(id, '')}"))
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
    by = {"by": f"{getpass.getuser()} (command line)"}
    row = _run(_ask(_settings(config), "POST", f"/domains/{_named(name)}/flush", by, running=True))
    if json:
        _lines([row])
    else:
        print(f"{row['domain']}: {row['text']}")


def trace(id: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:  # noqa: A002
    """What happened to a mail."""
    events = _run(_ask(_settings(config), "GET", f"/trace/{quote(id, '')}"))
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


# --- asking ---


async def _ask(
    config: Config,
    method: str,
    path: str,
    body: dict[str, str] | None = None,
    *,
    params: dict[str, Any] | None = None,
    running: bool = False,
) -> Any:
    """The answer's JSON. `running`: only a running service can do it. Raises Failed."""
    async with _client(config, running=running) as client:
        return await _call(client, method, path, body, params)


async def _all_rows(config: Config, of: str | None) -> None:
    """Print every row of the queue, a page at a time."""
    after: list[Any] | None = None
    async with _client(config, running=False) as client:
        while True:
            cursor = None if after is None else f"{after[0]!r},{after[1]}"
            page = await _call(client, "GET", "/queue", None, _only(domain=of, limit=PAGE, after=cursor))
            _lines(page["rows"])
            after = page["after"]
            if after is None:
                return


async def _call(
    client: httpx.AsyncClient, method: str, path: str, body: Any, params: dict[str, Any] | None
) -> Any:
    try:
        response = await client.request(method, path, json=body, params=params)
    except httpx.HTTPError as error:
        raise Failed(f"the running service broke off: {error or type(error).__name__}") from error
    if response.is_success:
        if "stale" in response.headers:
            print("backupmx: the log is away; this is the last that was read from it", file=sys.stderr)
        return response.json()
    try:
        sentence = response.json()["error"]
    except (ValueError, KeyError) as error:
        raise Failed(f"the running service does not know {method} {path}") from error
    raise Failed(sentence, 2 if response.status_code == 400 else 1)


@asynccontextmanager
async def _client(config: Config, *, running: bool) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the running service, or to an application of our own over the log. Raises Failed."""
    path = config.state_directory / SOCKET
    timeout = httpx.Timeout(WITHIN_S + ANSWER_S + 10)
    if await _answers(path):
        transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://control", timeout=timeout
        ) as client:
            yield client
        return
    if running or config.log.kind != "sqlite":
        raise Failed(f"no service answers on {path}: this needs a running control")
    async with _own_desk(config) as desk:
        transport = httpx.ASGITransport(application(desk))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://control", timeout=timeout
        ) as client:
            yield client


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def _own_desk(config: Config) -> AsyncIterator[Desk]:
    """A desk over the embedded log, which this process takes for as long as it asks. Raises Failed."""
    clock, metrics = SystemClock(), Metrics()
    dns = Dns([(at.address, at.port) for at in config.dns.servers], clock, config.dns.timeout_s)
    try:
        async with open_sqlite(config, clock) as (log, partitions), _nowhere() as nowhere:
            events = Events(
                log, clock, metrics, service="control", host=config.host.name, partitions=partitions,
                out=nowhere,
            )  # fmt: skip
            desk = Desk(Deps(config, log, clock, dns, events, metrics, partitions))
            tasks = [asyncio.ensure_future(each) for each in (*desk.followers(), events.run())]
            try:
                async with log.own("control", desk.register.claims):
                    await desk.restored()
                    yield desk
                    await events.flush()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    except CannotStart as error:
        raise Failed(str(error)) from error
    finally:
        await dns.close()


@asynccontextmanager
async def _nowhere() -> AsyncIterator[TextIO]:
    """Events of a command go to the log alone: standard output is for its answer."""
    with Path(os.devnull).open("w") as nowhere:  # noqa: ASYNC230 nothing is waited for
        yield nowhere


# --- helpers of the commands ---


def _settings(path: Path) -> Config:
    try:
        return load(path)
    except Wrong as error:
        fail(str(error), 2)


def _named(name: str) -> str:
    """The domain that was typed, in normal form."""
    try:
        return named(name)
    except Malformed as error:
        fail(str(error), 2)


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
