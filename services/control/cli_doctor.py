"""The command `domain doctor`: five lights, and what to do about each thing that is wrong."""

import textwrap
from typing import Annotated, Any

import typer

from libs.mail.records import Language
from libs.runtime.terminal import AsJson, print_rows
from services.control.caller import ask
from services.control.owner_report import filled, owner_report
from services.control.terminal import DEFAULT_CONFIG, ConfigFile, configured, named_domain, run, when

_MARKS = {"good": "+", "note": "-", "warning": "!", "wrong": "X"}
_WIDTH = 100


def doctor(
    name: str,
    language: Annotated[str, typer.Option(help="en, de: of what is said.")] = "en",
    last: Annotated[bool, typer.Option("--last", help="What was seen last, without another look.")] = False,
    for_owner: Annotated[
        bool, typer.Option("--for-owner", help="A text to send to the domain's owner, without our commands.")
    ] = False,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
) -> None:
    """See whether all is as it should be with a domain: DNS, its server, what that says of recipients.

    Nothing is left at the server: no mail is sent. All domains are examined every few hours
    (timing.examine_s); `domain list` counts what was found. Exit code 1 where something is wrong.
    Example: backupmx domain doctor office.example --for-owner --language de"""
    path = f"/domains/{named_domain(name)}/doctor"
    found = run(
        ask(
            configured(config), "GET", path, params={"language": language} | ({"last": "yes"} if last else {})
        )
    )
    if json:
        print_rows([found])
    elif for_owner:
        print(owner_report(found, Language(language)), end="")
    else:
        if last:
            print(f"as of {when(found['examined'])}")
        _print(found)
    raise typer.Exit(1 if found["wrong"] else 0)


def print_lights(found: dict[str, Any]) -> None:
    """The first screen: five lights, and below each that is not good the one thing to do."""
    print(found["domain"])
    for light in found["lights"]:
        print(f"  {_MARKS[light['level']]} {light['says']}")
        if light["fix"]:
            print(filled(light["fix"], "      ", _WIDTH))


def _print(found: dict[str, Any]) -> None:
    print_lights(found)
    for each in found["findings"]:
        print()
        lines = textwrap.wrap(each["what"], _WIDTH - 2)
        print(f"{_MARKS[each['level']]} " + "\n  ".join(lines))
        for sentence in (each["why"], each["remedy"]):
            print(filled(sentence, "  ", _WIDTH))
