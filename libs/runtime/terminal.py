"""What the commands of all services say and how they end: a sentence and an exit code, JSON lines."""

import io
import sys
from collections.abc import Iterable
from typing import Annotated, Any, NoReturn

import msgspec
import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def fail(sentence: str, code: int) -> NoReturn:
    """Say it on standard error and leave."""
    print(f"backupmx: {sentence}", file=sys.stderr)
    raise typer.Exit(code)


def for_programs() -> None:
    """From now on standard output is UTF-8 in every locale: JSON (RFC 8259 section 8.1), address lists."""
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(encoding="utf-8")


def for_people() -> None:
    """What the locale cannot write is shown as Python writes it, and stops nobody."""
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(errors="backslashreplace")


def typed(argument: str) -> str:
    """An argument of the command line in UTF-8, of which a locale without it has left the octets."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def print_rows(rows: Iterable[Any]) -> None:
    for_programs()
    for each in rows:
        print(msgspec.json.encode(each).decode())
