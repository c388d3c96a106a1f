"""What the commands of all services say and how they end: a sentence and an exit code, JSON lines."""

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


def print_rows(rows: Iterable[Any]) -> None:
    for each in rows:
        print(msgspec.json.encode(each).decode())
