"""The command `backupmx`. What runs services is in services/process.py; the commands `domain`, `suspend`,
`access` and `trace` are in services/control/cli.py, `queue` and `vault` in files beside it, `auth` in
services/verify/cli_auth.py. Whatever a command alone needs is imported by it, so that none waits for what the
others need.
"""

import asyncio
import json
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from libs.log.contract import LogError
from libs.runtime.config import Config
from libs.runtime.sample import sample
from libs.runtime.terminal import fail, for_people, for_programs
from services.control import cli
from services.control.cli_announce import announce
from services.control.cli_queue import queue
from services.control.cli_selfcheck import selfcheck
from services.control.cli_top import top
from services.control.cli_vault import vault
from services.control.terminal import DEFAULT_CONFIG, ConfigFile, configured
from services.verify.cli_auth import auth

SERVICES = ("ingest", "verify", "deliver", "control")  # the order in which they drain

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="A backup mail exchanger as a service.",
)  # fmt: skip
topics = typer.Typer(no_args_is_help=True, help="The topics on Kafka.")
app.add_typer(cli.domain, name="domain")
app.add_typer(queue, name="queue")
app.add_typer(vault, name="vault")
app.add_typer(cli.access, name="access")
app.add_typer(auth, name="auth")
app.add_typer(topics, name="topics")
app.command("suspend")(cli.suspend)
app.command("resume")(cli.resume)
app.command("trace")(cli.trace)
app.command("selfcheck")(selfcheck)
app.command("top")(top)
app.command("announce")(announce)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"backupmx {metadata.version('backupmx')}")
        raise typer.Exit


@app.callback()
def _top(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="Say which version this is."),
    ] = False,
) -> None:
    """The one command; `version` has been said by its callback."""


def _serve(config: Config, names: Sequence[str]) -> None:
    """Run a process to its end, or the parent of several."""
    from services.process import serve

    for_programs()
    serve(config, names)


@app.command()
def solo(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """All services in one process.

    Example: backupmx solo --config /etc/backupmx.toml"""
    _serve(configured(config), SERVICES)


@app.command()
def ingest(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Receive mail (over Kafka).

    Example: backupmx ingest --config /etc/backupmx.toml"""
    _serve(configured(config), ["ingest"])


@app.command()
def verify(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Ask primaries for recipients, authenticate senders (over Kafka).

    Example: backupmx verify --config /etc/backupmx.toml"""
    _serve(configured(config), ["verify"])


@app.command()
def deliver(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Hand mail over to the primaries (over Kafka).

    Example: backupmx deliver --config /etc/backupmx.toml"""
    _serve(configured(config), ["deliver"])


@app.command()
def control(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Keep the relay domains, answer the commands (over Kafka).

    Example: backupmx control --config /etc/backupmx.toml"""
    _serve(configured(config), ["control"])


@app.command("run")
def run_here(folder: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("run")) -> None:
    """Try it out: write a configuration on first use, then run it.

    Example: backupmx run --folder run"""
    path = folder / "backupmx.toml"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        at, health_at = (f"127.0.0.1:{_free_port(port)}" for port in (2525, 9125))
        path.write_text(sample(id=secrets.token_hex(8), listen=at, health=health_at), "utf-8")
        print(f"Written: {path}, with every setting explained.")
    config = configured(path)
    listen = (config.smtp.listen or config.smtp.proxy_listen)[0]
    command = f"{Path(sys.argv[0])} domain add YOUR-DOMAIN --config {path}"
    print(
        f"Mail is received on {listen} as soon as the service is ready. In another terminal, take on a\n"
        f"domain whose mail server you know, then send it a mail:\n\n"
        f"    {command}\n"
        f"    printf 'Subject: hello\\n\\nhello\\n' | curl --crlf --url smtp://{listen} "
        f"--mail-from me@isp.example --mail-rcpt you@YOUR-DOMAIN -T -\n\n"
        f"^C ends it. One JSON line follows for each thing that happens.\n",
        flush=True,
    )
    _serve(config, SERVICES)


def _free_port(wanted: int) -> int:
    """`wanted`, or any free one on loopback when that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@topics.command()
def apply(
    config: ConfigFile = DEFAULT_CONFIG,
    new: Annotated[bool, typer.Option("--new", help="Write the record of a new installation.")] = False,
) -> None:
    """Create the topics that are missing.

    Example: backupmx topics apply --new"""
    from services.control import setup

    for line in _on_kafka(configured(config), lambda settings: setup.apply(settings, new=new)):
        print(line)


@topics.command()
def check(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Say what differs from what the services need; exit code 1 when something does.

    Example: backupmx topics check"""
    from services.control import setup

    differences = _on_kafka(configured(config), setup.check)
    for line in differences:
        print(line)
    raise typer.Exit(1 if differences else 0)


@topics.command()
def acls(
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Annotated[
        bool, typer.Option("--json", help="A service a line, as Strimzi's KafkaUser.")
    ] = False,
) -> None:
    """Print what each service may do on Kafka, as arguments of kafka-acls.sh; nothing is asked or changed.

    Example: backupmx topics acls"""
    from libs import rights

    prefix = configured(config).log.prefix
    rules = {service: list(rights.rules(service, prefix)) for service in rights.SERVICES}
    for service, of in rules.items():
        if as_json:
            user = rights.principal(service)
            print(json.dumps({"user": user, "acls": [rights.strimzi(rule) for rule in of]}))
        else:
            print(*(rights.command(service, rule) for rule in of), sep="\n")


def _on_kafka(config: Config, doing: Callable[[Config], Awaitable[list[str]]]) -> list[str]:
    from services.control.setup import NotDone

    if config.log.kind != "kafka":
        fail("log.kind is 'sqlite': only Kafka has topics to apply", 2)

    async def done() -> list[str]:
        return await doing(config)

    try:
        return asyncio.run(done())
    except (NotDone, LogError) as error:
        fail(str(error), 1)


def main() -> None:
    for_people()
    app()
