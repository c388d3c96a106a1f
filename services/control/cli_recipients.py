"""The commands `domain recipients`: what is known of them, and what the operator says of them."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from libs.mail.reply import escaped
from libs.runtime.config import Config
from libs.runtime.terminal import AsJson, fail, for_programs, print_rows, typed
from services.control.addresses import read, write
from services.control.caller import Failed, call, calling
from services.control.door import SAID
from services.control.recipients import Roll, Row, deliverable, summary, told
from services.control.terminal import (
    DEFAULT_CONFIG,
    ConfigFile,
    by_whom,
    columns,
    configured,
    console,
    formed,
    named_domain,
    run,
    when,
)

TAKEN_S = 60.0  # without any news of what verify was told
SHOWN = 20  # addresses by name in a sentence, wrong lines one by one

recipients = typer.Typer(no_args_is_help=True, help="What is known of the recipients of a domain.")

Addresses = Annotated[list[str], typer.Argument(metavar="ADDRESS...", show_default=False)]


@recipients.command("import")
def recipients_import(
    name: str,
    file: Annotated[Path, typer.Argument(help="A list, a Postfix map, LDIF or CSV; - for standard input.")],
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out lines that are wrong.")] = False,
    wait: Annotated[bool, typer.Option(help="Until the primary has been asked about all.")] = True,
) -> None:
    """Ask the primary about all addresses of a file, gently; none is believed before it says yes.

    Example: backupmx domain recipients import office.example relay_recipients"""
    domain, settings = named_domain(name), configured(config)
    found = read(_octets(file), domain)
    for each in found.wrong[:SHOWN]:
        print(f"backupmx: {file}, {each}", file=sys.stderr)
    if (more := len(found.wrong) - SHOWN) > 0:
        print(f"backupmx: {file}, and {more} more lines", file=sys.stderr)
    if found.wrong and not skip_bad:
        fail("nothing is imported: correct these lines, or leave them out with --skip-bad", 2)
    if not found.addresses:
        fail(f"{file} holds no address of {domain}", 2)
    try:
        rows = run(_import(settings, domain, found.addresses, wait=wait))
    except KeyboardInterrupt:
        fail("stopped; what was handed over is asked about all the same, and the same command goes on", 1)
    if json:
        print_rows(rows)
    elif wait:
        print(f"{domain}: {len(rows)} imported: {summary(rows)}")
    else:
        print(f"{domain}: {len(rows)} imported; {_waiting(rows)} to be asked about")


@recipients.command("list")
def recipients_list(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """What is known, since when and from what.

    Example: backupmx domain recipients list office.example"""
    rows = run(_all(configured(config), named_domain(name)))
    if json:
        print_rows(rows)
    elif not rows:
        print(f"Nothing is known: backupmx domain recipients import {name} FILE")
    else:
        table = columns("recipient", "status", "since", "confirmed", "from", "remark")
        for row in rows:
            since, confirmed = when(row["since"]), when(row["confirmed"])
            table.add_row(
                escaped(row["address"]), row["status"], since, confirmed, row["source"] or "-", _remark(row)
            )
        console().print(table)


@recipients.command("export")
def recipients_export(
    name: str,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    form: Annotated[str, typer.Option("--format", help="list, postfix (relay_recipient_maps).")] = "list",
) -> None:
    """The recipients that exist, one a line, as `import` reads them.

    Example: backupmx domain recipients export office.example"""
    if form not in ("list", "postfix"):
        fail(f"--format must be list or postfix, not {form!r}", 2)
    rows = run(_all(configured(config), named_domain(name)))
    if json:
        print_rows([row for row in rows if row["status"] == "deliverable"])
    else:
        for_programs()
        for line in write(deliverable(rows), postfix=form == "postfix"):
            print(line)


@recipients.command("allow")
def recipients_allow(
    name: str, addresses: Addresses, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False
) -> None:
    """Take mail for these, whatever the primary says of them, until you forget them.

    Example: backupmx domain recipients allow office.example ann@office.example"""
    _say("allow", name, addresses, config, json=json)


@recipients.command("forget")
def recipients_forget(
    name: str,
    addresses: Annotated[list[str] | None, typer.Argument(metavar="[ADDRESS...]")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    everybody: Annotated[bool, typer.Option("--all", help="All recipients of the domain.")] = False,
) -> None:
    """Know nothing of these any more; the primary is asked when mail comes for them.

    Example: backupmx domain recipients forget office.example --all"""
    if bool(addresses) is everybody:
        fail("forget whom? Give addresses, or --all", 2)
    if addresses is None or everybody:
        addresses = [row["address"] for row in run(_all(configured(config), named_domain(name)))]
    _say("forget", name, addresses, config, json=json)


def _say(verb: str, name: str, addresses: list[str], config: Path, *, json: bool) -> None:
    domain, settings = named_domain(name), configured(config)
    each_typed = map(typed, addresses)
    keys = {formed(lambda each: told(verb, each, domain, "")[0], each): each for each in each_typed}
    rows = run(_told(settings, domain, verb, keys))
    if json:
        print_rows(rows)
        return
    done = "allowed" if verb == "allow" else "forgotten"
    for row in rows[:SHOWN]:
        print(f"{row['address']} is {done}.")
    if len(rows) > SHOWN:
        print(f"{len(rows) - SHOWN} more are {done}.")
    if not rows:
        print(f"Nothing is known of the recipients of {domain}.")


# --- what is asked of control ---


class _Reader:
    """The recipients of a domain, page by page."""

    def __init__(self, client: httpx.AsyncClient, domain: str) -> None:
        self.roll, self.client, self.path = Roll(), client, f"/domains/{domain}/recipients"
        self.primary = ""
        self.after: int | None = None

    async def more(self) -> bool:
        """Read a page; False: there is nothing new, and that was waited for. Raises Failed."""
        params = {} if self.after is None else {"after": self.after}
        page = await call(self.client, "GET", self.path, None, params)
        for each in page["changes"]:
            self.roll.fold(each)
        self.after, self.primary = page["after"], page["primary"]
        return bool(page["changes"]) or not page["end"]

    async def say(self, verb: str, addresses: list[str]) -> None:
        """Raises Failed."""
        body = {"verb": verb, "addresses": addresses, "by": by_whom()}
        said = await call(self.client, "POST", self.path, body, None)
        self.after = said["after"] if self.after is None else self.after

    async def until_none(self, left: Callable[[], int]) -> None:
        """Read on until nothing is left of what verify was told. Raises Failed when that gets no less."""
        heard, before = time.monotonic(), left()
        while before:
            await self.more()
            now = left()
            if now < before:
                heard = time.monotonic()
            elif time.monotonic() - heard > TAKEN_S:
                raise Failed(f"verify has not answered within {TAKEN_S:.0f} s: is it running? Try again")
            before = now


async def _all(config: Config, domain: str) -> list[Row]:
    async with _reading(config, domain, running=False) as reader:
        while await reader.more():
            pass
        return reader.roll.rows()


async def _told(config: Config, domain: str, verb: str, keys: dict[str, str]) -> list[Row]:
    """Say it of all, and see that it is done."""
    async with _reading(config, domain, running=True) as reader:
        for page in _pages(keys):
            await reader.say(verb, [keys[key] for key in page])
            await reader.until_none(partial(_without, reader.roll.settled, page))
        return [reader.roll.row(key) | {"address": keys[key]} for key in keys]


async def _import(config: Config, domain: str, keys: dict[str, str], *, wait: bool) -> list[Row]:
    roll, left = Roll(), set(keys)
    try:
        async with _reading(config, domain, running=True) as reader:
            roll = reader.roll
            with _bar(len(keys)) as show:
                for page in _pages(keys):
                    await reader.say("import", [keys[key] for key in page])
                    await reader.until_none(partial(_without, roll.spoken_of, page))
                while wait and (left := {key for key in left if not roll.answered(key)}):
                    show(len(keys) - len(left), reader.primary)
                    await reader.more()
    except Failed as error:
        if not any(map(roll.spoken_of, keys)):
            raise
        raise Failed(f"{error} ({_so_far(roll, keys)})", error.code) from error
    return [roll.row(key) | {"address": keys[key]} for key in keys]


@asynccontextmanager
async def _reading(config: Config, domain: str, *, running: bool) -> AsyncIterator[_Reader]:
    async with calling(config, running=running) as client:
        yield _Reader(client, domain)


def _pages(keys: Iterable[str]) -> Iterable[list[str]]:
    every = list(keys)
    return (every[start : start + SAID] for start in range(0, len(every), SAID))


def _without(done: Callable[[str], bool], keys: Iterable[str]) -> int:
    return sum(not done(key) for key in keys)


def _so_far(roll: Roll, keys: Iterable[str]) -> str:
    rows = [roll.row(key) for key in keys if roll.spoken_of(key)]
    return f"{_waiting(rows)} wait still to be asked about"


# --- helpers ---


def _octets(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        fail(f"{file}: {error.strerror or error}", 2)


def _remark(row: Row) -> str:
    if row["doubted_since"]:
        return f"doubted since {when(row['doubted_since'])}"
    if row["imported"]:
        return "to be asked about" + (f" again ({row['outcome']})" if row["outcome"] else "")
    return row["outcome"] or "-"


def _waiting(rows: Iterable[Row]) -> int:
    return sum(bool(row["imported"]) for row in rows)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int, str], None]]:
    """How many of `total` were answered, on a terminal; a pipe sees nothing of it."""
    parts = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    stderr = Console(stderr=True)
    with Progress(*parts, console=stderr, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("asking", total=total)

        def show(answered: int, primary: str) -> None:
            asking = primary not in ("down", "deferring")
            progress.update(
                task,
                completed=answered,
                description="asking" if asking else f"the primary is {primary}",
            )

        yield show
