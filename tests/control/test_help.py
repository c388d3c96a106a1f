"""Every verb has words for people: a help with an example that is right, and its place in the manual page."""

import shlex
from typing import Any

import pytest

from deploy.man.page import PAGE, commands, text

VERBS = dict(commands())


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_help(words: tuple[str, ...]) -> None:
    """One sentence first, and an example of this very verb that can be typed."""
    about, _, example = VERBS[words].help.partition("Example: backupmx ")
    assert about.strip().rstrip(")").endswith(".")
    typed = shlex.split(example.partition(" > ")[0])
    assert tuple(typed[: len(words)]) == words
    command: Any = VERBS[words]
    command.make_context(words[-1], typed[len(words) :])
    for each in command.params:
        assert each.param_type_name == "argument" or each.name == "config" or each.help, each.name


def test_the_manual_page_is_that_of_the_commands() -> None:
    """`make man` writes it again."""
    assert PAGE.read_text("utf-8") == text()
