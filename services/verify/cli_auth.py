"""The command `auth check`: what we would say of a message, and why. It needs no service and no
configuration; what does the work is imported when it is called."""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.runtime.terminal import AsJson, fail, print_rows

if TYPE_CHECKING:
    from services.verify.checking import Servers
    from services.verify.inquiry import Inquiry

_LOCALHOST = re.compile(r"^localhost:", re.IGNORECASE)

auth = typer.Typer(no_args_is_help=True, help="Is a sender honest: SPF, DKIM.")

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", show_default=False,
        help="The message as it came, without our own fields; - for standard input. A line feed that "
        "stands alone, as in most files, is read as the line end CR LF.",
    ),
]  # fmt: skip
Ip = Annotated[str | None, typer.Option(help="The address of the client that brought it.")]
Helo = Annotated[str | None, typer.Option(help="What it called itself.")]
Relay = Annotated[
    str | None,
    typer.Option(
        help="The address of a trusted relay that handed it over, and named --ip and --helo, or nobody."
    ),
]
MailFrom = Annotated[str | None, typer.Option(help="The return path; <> for none.")]
At = Annotated[str | None, typer.Option(help="When it came, such as 2026-11-24T10:00:00Z; else now.")]
Dns = Annotated[
    str | None, typer.Option(help="ADDRESS:PORT or localhost:PORT to ask; else as the system does.")
]
Host = Annotated[
    list[str] | None,
    typer.Option(
        help="Our host names, of which the first is written into the field; else that of this machine."
    ),
]
Enforced = Annotated[
    str | None, typer.Option(help="What the relay domain wants refused: off (default), dmarc or spf.")
]
Trusted = Annotated[
    list[str] | None, typer.Option(help="A domain whose ARC seals are believed; may come several times.")
]
Batch = Annotated[
    bool,
    typer.Option(
        "--batch", help="Read one JSON object a line on standard input (id, message or message_b64, ip, "
        "helo, mail_from, relay, at, dns, enforce, trusted), write one JSON result a line, in order. What "
        "is missing is not checked.",
    ),
]  # fmt: skip


@auth.callback()
def _auth() -> None:
    """A group, though it has one command only."""


@auth.command()
def check(
    file: File = None,
    ip: Ip = None,
    helo: Helo = None,
    mail_from: MailFrom = None,
    relay: Relay = None,
    at: At = None,
    dns: Dns = None,
    enforce: Enforced = None,
    trusted: Trusted = None,
    host: Host = None,
    batch: Batch = False,
    json: AsJson = False,
) -> None:
    """What we would say of a message, and why. What is not told is not checked: without --ip no SPF.

    Example: backupmx auth check message.eml --ip 192.0.2.1 --mail-from eve@sender.example"""
    import uvloop

    from services.verify.inquiry import Line, Malformed, host_name, inquiry

    asked = Line(
        ip=ip, helo=helo, mail_from=mail_from, relay=relay, at=at, enforce=enforce,
        trusted=tuple(trusted) if trusted else None,
    )  # fmt: skip
    if batch and (file or asked != Line()):
        fail("with --batch each line names its own message, ip, helo, mail_from and the like", 2)
    if not batch and file is None:
        fail("name the file of a message, or - for standard input", 2)
    about = None
    try:
        servers = _endpoint(dns) if dns is not None else ()
        hosts = [host_name(each) for each in host or ()] or [socket.gethostname()]
        if file is not None:
            about = inquiry(asked)
    except Malformed as error:
        fail(str(error).replace("mail_from", "mail-from"), 2)
    octets = b"" if file is None else _read(file)
    uvloop.run(_run(hosts, servers, about, octets, json))


async def _run(
    hosts: list[str], servers: "Servers", about: "Inquiry | None", octets: bytes, json: bool
) -> None:
    """Check a message, or, without one, the lines of standard input."""
    import msgspec
    import structlog

    from libs.runtime.config import DnsPart, TimingPart
    from services.verify.account import in_words
    from services.verify.checking import Checker
    from services.verify.inquiry import as_sent

    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )  # standard output is for results
    checker = Checker(
        hosts, servers, _endpoint, timeout_s=DnsPart().timeout_s, within_s=TimingPart().verdict_deadline_s
    )
    try:
        if about is None:
            await checker.batch(_lines(), _say)
            return
        told = await checker.check(msgspec.structs.replace(about, message=as_sent(octets)))
        print_rows([told]) if json else print(in_words(told))
    finally:
        await checker.close()


async def _lines() -> AsyncIterator[bytes]:
    while raw := await asyncio.to_thread(sys.stdin.buffer.readline):
        yield raw


def _say(told: dict[str, Any]) -> None:
    """At once: whoever asks may wait for it before he asks on."""
    try:
        print_rows([told])
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on; the thread that waits for standard input would not let us go
        os._exit(1)


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)


def _endpoint(text: str) -> "Servers":
    """Raises Malformed."""
    from pydantic import ValidationError

    from libs.runtime.config import Endpoint
    from services.verify.inquiry import Malformed

    try:
        at = Endpoint.model_validate(_LOCALHOST.sub("127.0.0.1:", text))
    except ValidationError as error:
        raise Malformed(f"dns must be address:port, such as 127.0.0.1:53, not {text!r}") from error
    return ((at.address, at.port),)
