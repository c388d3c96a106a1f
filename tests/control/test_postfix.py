"""What is read of a Postfix: case files, and whatever a file may hold."""

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.control.domains import Malformed
from services.control.postfix import relayed

CASES = Path(__file__).parent / "cases/postfix"


def read(files: dict[str, str], name: str) -> str:
    if name not in files:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return files[name]


@pytest.mark.parametrize("path", sorted(CASES.glob("*.case")), ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    given_, _, wanted = path.read_text("utf-8").partition("===\n")
    parts = re.split(r"^--- (.+)\n", given_, flags=re.MULTILINE)[1:]
    files = dict(zip(parts[::2], parts[1::2], strict=True))
    try:
        found = relayed(files["main.cf"], lambda name: read(files, name))
    except Malformed as error:
        lines = [f"wrong: {error}"]
    else:
        lines = [
            " ".join((name, *(f"{key}={text}" for key, text in settings.items())))
            for name, settings in found.domains.items()
        ]
        lines += [f"recipients {each}" for each in found.recipients]
        lines += [f"note: {each}" for each in found.remarks]
    assert lines == wanted.splitlines()


words = st.sampled_from(
    ["relay_domains", "transport_maps", "=", " ", "\n", "$", "${", "}", "$(", ")", "?", ":", "hash:", ",",
     "!", "inline:{", "a.example", "[", "]", "smtp:", "#", "message_size_limit", "9", "/f"]
)  # fmt: skip


@given(st.lists(words, max_size=30).map("".join), st.text(max_size=50))
def test_whatever_a_file_holds(main_cf: str, file: str) -> None:
    """It is read, or it is one sentence; quickly, too."""
    try:
        found = relayed("relay_domains = a.example\n" + main_cf, lambda _: file)
    except Malformed as error:
        why = str(error)
    else:
        why = ""
        assert all("." in name for name in found.domains)
    assert "\n" not in why
