"""The manual page, from the tree of commands: man(7) macros, a section for each group of verbs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from services.main import app

PAGE = Path(__file__).parent.parent.parent / "man/backupmx.1"
_HEAD = r"""
.TH BACKUPMX 1 "" backupmx "User Commands"
.SH NAME
backupmx \- a backup mail exchanger as a service
.SH SYNOPSIS
.B backupmx
.I COMMAND
.RI [ ARGUMENT ...]
.SH DESCRIPTION
Accepts mail for relay domains while their own servers are away, only such mail as these would have accepted,
and hands it over when they are back. Every command that is not a service asks the running control over its
socket; with
.B log.kind sqlite
and no service running it opens the log by itself.
"""
_TAIL = r"""
.SH EXIT STATUS
0: done, or nothing is wrong. 1: not done, or something is wrong; one sentence on standard error says what.
2: the command itself is wrong.
.SH ENVIRONMENT
.TP
.B BACKUPMX_CONFIG
The configuration file, where no \-\-config is given.
.TP
.B NO_COLOR
No colours, whatever the terminal can show.
.SH FILES
.TP
.I /etc/backupmx.toml
The configuration; \fBbackupmx run\fR writes one with every setting explained.
"""


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words of each verb, and its command as click has it."""
    yield from _below((), typer.main.get_command(app))


def _below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, each in command.commands.items():
        yield from _below((*words, name), each)


def text() -> str:
    """The whole page."""
    parts, section = [_HEAD.strip()], ""
    for words, command in sorted(commands(), key=lambda each: (len(each[0]) > 1, each[0][:-1])):
        title = " ".join(words[:-1]).upper() or "COMMANDS"
        if title != section:
            section = title
            parts.append(f".SH {title}")
        parts.append(_verb(words, command))
    return "\n".join([*parts, _TAIL.strip()]) + "\n"


def _verb(words: tuple[str, ...], command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    shown = "".join(
        f" \\fI{each.name.upper()}\\fR" if each.required else f" [\\fI{each.name.upper()}\\fR]"
        for each in arguments
    )
    about, _, example = (command.help or "").partition("Example:")
    lines = [".TP", f"\\fBbackupmx {_escaped(' '.join(words))}\\fR{shown}", _escaped(" ".join(about.split()))]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    if options:
        lines.append(".RS")
        for each in options:
            lines += [".TP", f"\\fB{_escaped(', '.join(each.opts))}\\fR", _escaped(each.help or "")]
        lines.append(".RE")
    if example:
        lines += [".IP", f"Example: \\fB{_escaped(' '.join(example.split()))}\\fR"]
    return "\n".join(lines)


def _escaped(plain: str) -> str:
    """Backslashes and hyphens as themselves; no line begins with a request."""
    shown = plain.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{shown}" if shown.startswith((".", "'")) else shown
