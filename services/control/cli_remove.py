"""`domain remove` and `domain erase`: the end of a relay domain."""

from pathlib import Path
from typing import Annotated

import typer

from libs.runtime.terminal import AsJson, fail, print_rows
from services.control.caller import ask
from services.control.doing import Yes
from services.control.domains import How
from services.control.terminal import DEFAULT_CONFIG, ConfigFile, by_whom, configured, named_domain, run, sure


def remove(
    name: str,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
    drain: Annotated[bool, typer.Option("--drain", help="Hand over what waits, then remove it.")] = False,
    bounce: Annotated[bool, typer.Option("--bounce", help="Tell the senders of what waits.")] = False,
    erase: Annotated[bool, typer.Option("--erase", help="End what waits; nobody is told.")] = False,
    yes: Yes = False,
) -> None:
    """Take no more mail for a domain; refused while mail for it waits, unless you say what becomes of that.

    Example: backupmx domain remove office.example --drain"""
    chosen = [how for how, said in ((How.DRAIN, drain), (How.BOUNCE, bounce), (How.ERASE, erase)) if said]
    if len(chosen) > 1:
        fail("say one of --drain, --bounce and --erase", 2)
    _remove(named_domain(name), chosen[0] if chosen else How.EMPTY, config, json=json, yes=yes)


def erase(name: str, config: ConfigFile = DEFAULT_CONFIG, json: AsJson = False, yes: Yes = False) -> None:
    """Remove a domain with its mail and all that is known of its recipients; events go by their age.

    Example: backupmx domain erase office.example --yes"""
    _remove(named_domain(name), How.ERASE, config, json=json, yes=yes)


def _remove(name: str, how: How, config: Path, *, json: bool, yes: bool) -> None:
    asks_deliver = how in (How.BOUNCE, How.ERASE)
    if asks_deliver and not yes:
        done = "given up, and its senders are told" if how is How.BOUNCE else "ended, and nobody is told"
        if not sure(f"All mail of {name} is {done}?"):
            fail("nothing is done", 1)
    body = {"how": how.value, "by": by_whom()}
    row = run(ask(configured(config), "DELETE", f"/domains/{name}", body, running=asks_deliver))
    if json:
        print_rows([row])
        return
    for word in ("bounced", "deleted"):
        if word in row:
            print(f"{name}: {row[word]} {'mail is' if row[word] == 1 else 'mails are'} {word}.")
    if "forgotten" in row:
        print(f"{name}: {row['forgotten']} recipients are forgotten.")
    if row["removed"]:
        print(f"{name} is removed.")
    else:
        waits = f"{row['waiting']} {'mail waits' if row['waiting'] == 1 else 'mails wait'}"
        print(f"{name} is leaving: it takes no more mail, and is removed when none waits ({waits} now).")
