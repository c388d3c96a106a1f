"""What all commands of control share: the configuration, what the log answered, tables on a terminal."""

import asyncio
import getpass
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from libs.log.contract import LogError
from libs.runtime.config import Config
from libs.runtime.config_file import load
from libs.runtime.mistake import Wrong
from libs.runtime.terminal import fail, print_rows
from services.control.caller import Failed, ask
from services.control.domains import Malformed, named

T = TypeVar("T")

ConfigFile = Annotated[
    Path, typer.Option("--config", envvar="BACKUPMX_CONFIG", help="The configuration file.")
]
DEFAULT_CONFIG = Path("/etc/backupmx.toml")


def configured(path: Path) -> Config:
    """The configuration; a sentence and exit code 2 where it is wrong."""
    try:
        return load(path)
    except Wrong as error:
        fail(str(error), 2)


def named_domain(name: str) -> str:
    """The domain that was typed, in normal form."""
    return formed(named, name)


def formed(read: Callable[[str], T], typed: str) -> T:
    """What was typed, as `read` has it."""
    try:
        return read(typed)
    except Malformed as error:
        fail(str(error), 2)


def do_to_domain(verb: str, name: str, config: Path, *, json: bool) -> None:
    """Ask the running service for something that is done to a domain, and print what came of it."""
    body = {"by": by_whom()}
    row = run(ask(configured(config), "POST", f"/domains/{named_domain(name)}/{verb}", body, running=True))
    if json:
        print_rows([row])
    else:
        print(f"{row['domain']}: {row['text']}")


def by_whom() -> str:
    """Who asks."""
    return f"{getpass.getuser()} (command line)"


def run(asking: Coroutine[None, None, T]) -> T:
    """The result; a sentence and the exit code where there is none."""
    try:
        return asyncio.run(asking)
    except Failed as error:
        fail(str(error), error.code)
    except LogError as error:
        fail(f"the log: {error}", 1)


def sure(question: str) -> bool:
    """Ask on standard error: standard output is for what the command says. No answer is no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def only(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def console() -> Console:
    """As wide as the terminal; what goes into a pipe is not cut to 80 columns."""
    return Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False)


def columns(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def print_pairs(row: dict[str, Any]) -> None:
    for name, value in row.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name.replace('_', ' ')}: {shown if shown != '' else '-'}")


def print_mail(row: dict[str, Any]) -> None:
    """A row of the queue or of the vault."""
    recipients = row.pop("recipients")
    times = {key: when(row[key]) for key in ("arrival_time", "next_attempt", "since", "until") if key in row}
    print_pairs(row | times)
    for each in recipients:
        reason = f" ({each['delay_reason']})" if each["delay_reason"] else ""
        print(f"recipient: {each['address']}{reason}")


def print_total(page: dict[str, Any]) -> None:
    """Below a page of mails: how many there are."""
    total = f"{page['total']} mail" + ("" if page["total"] == 1 else "s")
    print(f"{len(page['rows'])} of {total}" if page["after"] else total)


def when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if seconds else "-"
