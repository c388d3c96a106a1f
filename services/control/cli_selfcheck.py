"""The command `selfcheck`: is this host as strangers and primaries expect it?"""

import asyncio

import typer

from libs.runtime.terminal import AsJson, fail, print_rows
from services.control.terminal import DEFAULT_CONFIG, ConfigFile, configured


def selfcheck(config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """See whether our hosts are right in DNS, this one's addresses and certificate, too; no service need run.

    Exit code 1 where something is wrong. Example: backupmx selfcheck --json"""
    from libs.runtime.selfcheck import Unreadable, look

    try:
        found = asyncio.run(look(configured(config)))
    except Unreadable as error:
        fail(str(error), 1)
    if json:
        print_rows(found)
    else:
        for each in found:
            print(f"{'+' if each.right else 'X'} {each.host}: {each.says}")
    raise typer.Exit(0 if all(each.right for each in found) else 1)
