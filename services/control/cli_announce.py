"""The command `announce`: owners hear of a new address of ours before it is used."""

from typing import Annotated

import typer

from libs.runtime.terminal import AsJson, print_rows
from services.control.caller import ask
from services.control.terminal import DEFAULT_CONFIG, ConfigFile, by_whom, configured, run


def announce(
    host: str,
    address: str,
    day: Annotated[
        str | None, typer.Option("--from", help="The first day, 2027-01-31; in 30 days where not given.")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
) -> None:
    """Tell every owner, once, that a host of ours gets another address, so that he lets it in in time.

    Example: backupmx announce mx2.backup.example 192.0.2.20 --from 2027-01-31"""
    body = {"host": host, "address": address, "by": by_whom()} | ({} if day is None else {"from": day})
    row = run(ask(configured(config), "POST", "/announce", body))
    if json:
        print_rows([row])
        return
    already = f"; {row['already']} knew" if row["already"] else ""
    whom = "1 contact is" if row["told"] == 1 else f"{row['told']} contacts are"
    print(f"{whom} told that {row['host']} has {row['address']} from {row['from']} on{already}.")
