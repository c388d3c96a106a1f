"""docs/first-day.md is what demo/first_day.py writes, but for times and ids."""

import re

from demo.first_day import HEAD, PAGE, STEPS


def test_the_page_has_every_step() -> None:
    """In their order; `make first-day` writes it again."""
    text = PAGE.read_text("utf-8")
    assert text.startswith(HEAD)
    shown = re.findall(r"^    \$ backupmx (.*)$", text, re.MULTILINE)
    typed = [command for _, command in STEPS if command]
    assert len(shown) == len(typed)
    for seen, command in zip(shown, typed, strict=True):
        assert re.fullmatch(re.escape(command).replace(r"\{id\}", "[a-z2-7]{24}"), seen)
    flat, at = " ".join(text.split()), 0
    for paragraph, _ in STEPS:
        at = flat.index(" ".join(paragraph.split()), at)
    assert "Traceback" not in text
