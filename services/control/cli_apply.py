"""The commands `domain apply` and `domain export`: the relay domains as a file has them."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.runtime.terminal import AsJson, fail, print_rows
from services.control import declared, postfix
from services.control.caller import ask
from services.control.declared import Settings
from services.control.domains import Malformed
from services.control.terminal import DEFAULT_CONFIG, ConfigFile, configured, run, sure

_READERS = {".toml": declared.from_toml, ".csv": declared.from_csv}
_SHOWN = 50  # domains of which each line is shown


def apply(
    source: Annotated[
        Path | None, typer.Argument(help="A .toml or .csv file, or a folder of them.", show_default=False)
    ] = None,
    from_postfix: Annotated[
        Path | None, typer.Option("--from-postfix", help="The main.cf of a Postfix that was the backup.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove the domains that are not there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before something is removed.")] = False,
    config: ConfigFile = DEFAULT_CONFIG,
    json: AsJson = False,
) -> None:
    """Make the relay domains what files say: add, change, and with --prune remove.

    A setting that is not there has its default. Applied again, nothing changes. Of a Postfix relay_domains
    and transport_maps are read.
    Example: backupmx domain apply domains.toml --dry-run"""
    if (source is None) is (from_postfix is None):
        fail("say what to read: a file or a folder, or --from-postfix main.cf", 2)
    wanted = _read(source) if source is not None else _of_postfix(from_postfix)
    body = {"domains": wanted, "prune": prune}
    settings = configured(config)
    planned = run(ask(settings, "POST", "/apply", {**body, "dry": True}))
    if not dry_run and planned["remove"] and not yes:
        _print(planned, done=False)
        if not sure(f"remove {_domains(len(planned['remove']))}?"):
            fail("nothing was done", 1)
    if not dry_run:
        planned = run(ask(settings, "POST", "/apply", {**body, "dry": False}))
    if json:
        print_rows([planned])
    else:
        _print(planned, done=not dry_run)
    raise typer.Exit(1 if planned["kept"] else 0)


def export(
    form: Annotated[str, typer.Option("--format", help="toml, csv.")] = "toml",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Write the relay domains with the settings of their own, for `domain apply`.

    Example: backupmx domain export > domains.toml"""
    print(run(ask(configured(config), "GET", "/export", params={"format": form}))["text"], end="")


def _read(source: Path) -> dict[str, Settings]:
    """All that is declared; a sentence and exit code 2 where something is wrong."""
    files = [source]
    if source.is_dir():
        files = sorted(each for each in source.iterdir() if each.suffix in _READERS)
    if not files:
        fail(f"{source}: there is no .toml and no .csv file", 2)
    found: dict[str, Settings] = {}
    for file in files:
        reader = _READERS.get(file.suffix)
        if reader is None:
            fail(f"{file}: it is neither .toml nor .csv", 2)
        try:
            read = reader(file.read_text("utf-8-sig"))
        except (Malformed, OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            fail(f"{file}: {why}", 2)
        if twice := sorted(found.keys() & read):
            fail(f"{file}: {twice[0]} is in another file, too", 2)
        found |= read
    return found


def _of_postfix(main_cf: Path | None) -> Mapping[str, Settings]:
    """What a Postfix relays for; remarks go to standard error. Files that are not where main.cf says are
    looked for beside it."""
    assert main_cf is not None

    def read(name: str) -> str:
        path = Path(name)
        return (path if path.exists() else main_cf.parent / path.name).read_text("utf-8")

    try:
        found = postfix.relayed(main_cf.read_text("utf-8"), read)
    except (Malformed, OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        fail(f"{main_cf}: {why}", 2)
    for remark in found.remarks:
        print(f"note: {remark}", file=sys.stderr)
    for path in found.recipients:
        print(f"note: backupmx domain recipients import DOMAIN {path} names its recipients", file=sys.stderr)
    return found.domains


def _print(planned: dict[str, Any], *, done: bool) -> None:
    """A line for each domain that changes, as in a diff, and the sum."""
    lines = [f"+ {name}{_after(given)}" for name, given in planned["add"].items()]
    lines += [f"~ {each['domain']}{_both(each)}" for each in planned["change"]]
    lines += [f"- {name}" for name in planned["remove"]]
    lines += [f"! {name}: {_mails(count)}, it is not removed" for name, count in planned["kept"].items()]
    for line in lines[:_SHOWN]:
        print(line)
    if len(lines) > _SHOWN:
        print(f"... and {len(lines) - _SHOWN} more")
    verb = "" if done else "to be "
    print(
        f"{_domains(len(planned['add']))} {verb}added, {len(planned['change'])} changed, "
        f"{len(planned['remove'])} removed, {planned['unchanged']} as they were"
    )


def _after(given: dict[str, str]) -> str:
    return "".join(f"  {name}={text}" for name, text in given.items())


def _both(change: dict[str, Any]) -> str:
    before, after = change["before"], change["after"]
    return "".join(f"  {name}: {before[name] or 'default'} -> {after[name] or 'default'}" for name in after)


def _mails(count: int) -> str:
    return "1 mail waits" if count == 1 else f"{count} mails wait"


def _domains(count: int) -> str:
    return f"{count} domain" if count == 1 else f"{count} domains"
