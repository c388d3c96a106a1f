"""`domain timeline`: the outages of a domain's primary."""

from libs.mail.reply import escaped
from libs.runtime.terminal import AsJson, print_rows
from services.control.caller import ask
from services.control.terminal import (
    DEFAULT_CONFIG,
    ConfigFile,
    columns,
    configured,
    console,
    named_domain,
    run,
    when,
)


def timeline(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False) -> None:
    """The outages of a domain's primary within the days that events are kept: when, and what waited.

    Example: backupmx domain timeline office.example"""
    rows = run(ask(configured(config), "GET", f"/domains/{named_domain(name)}/timeline"))
    if json:
        print_rows(rows)
    elif not rows:
        print(f"No outage of the server of {name} in the last days.")
    else:
        table = columns("from", "to", "state", "waited", "handed over", "the last at", "reply")
        for row in rows:
            since = when(row["since"]) if row["since"] else "before"
            until = when(row["until"]) if row["until"] else "now"
            counts = str(row["waited"]), str(row["handed_over"]), when(row["last"])
            table.add_row(since, until, ", ".join(row["states"]), *counts, escaped(row["reply"]))
        console().print(table)
