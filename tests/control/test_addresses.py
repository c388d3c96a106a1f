"""Files of addresses are read as the case files say (cases/README.case explains them), and what is written is
read again."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.address import BadAddress, Mailbox, mailbox
from services.control.addresses import read, write

CASES = sorted((Path(__file__).parent / "cases").glob("*.case"))
LOCALS = st.one_of(
    st.from_regex(r"\A[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}\Z"),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=15),
)


def spelt(local: str) -> Mailbox | None:
    """A mailbox of office.example with this local part, quoted where it must be."""
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    try:
        return mailbox(f'"{escaped}"@office.example')
    except BadAddress:
        return None


MAILBOXES = LOCALS.map(spelt).filter(lambda found: found is not None)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases(path: Path) -> None:
    _, text, wanted = path.read_text("utf-8").split("---\n")
    for octets in (
        text.encode(),
        text.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + text.encode(),
        b"\xff\xfe" + text.encode("utf-16-le"),
        b"\xfe\xff" + text.encode("utf-16-be"),
    ):
        found = read(octets, "office.example")
        assert [*found.addresses.values(), *map(str, found.wrong)] == wanted.splitlines()


def test_other_charsets() -> None:
    """A name in Latin-1 beside an address does no harm; in the address it is told."""
    found = read(
        "name,mail\nJürgen,ann@office.example\nBob,jürgen@office.example\n".encode("latin-1"),
        "office.example",
    )
    assert list(found.addresses) == ["ann@office.example"]
    assert [str(each) for each in found.wrong] == ["line 3: 'j\\udcfcrgen@office.example' is no mail address"]


@given(st.lists(MAILBOXES, unique_by=lambda found: found.key), st.booleans())
def test_what_is_written_is_read(mailboxes: list[Mailbox], postfix: bool) -> None:
    """Any address at all, as a list and as a map of Postfix."""
    text = "\n".join(write(map(str, mailboxes), postfix=postfix))
    found = read(text.encode(), "office.example")
    assert found.wrong == []
    assert list(found.addresses.items()) == [(each.key, str(each)) for each in mailboxes]


@given(st.lists(MAILBOXES, min_size=1, unique_by=lambda found: found.key), st.integers(1, 40))
def test_ldif_folded_anywhere(mailboxes: list[Mailbox], width: int) -> None:
    """In base64, cut at any width."""
    lines = ["dn: cn=all"]
    for each in mailboxes:
        line = f"mail:: {base64.b64encode(str(each).encode()).decode()}"
        lines += [line[:width], *(f" {line[at : at + width]}" for at in range(width, len(line), width))]
    found = read("\n".join(lines).encode(), "office.example")
    assert found.wrong == []
    assert list(found.addresses) == [each.key for each in mailboxes]


@given(st.binary() | st.text(st.sampled_from('ab@.,;:"\\\t\n #<>office.example-dnmail')).map(str.encode))
def test_any_octets(octets: bytes) -> None:
    """Whatever is in the file: addresses of the domain in normal form, and sentences of one line."""
    found = read(octets, "office.example")
    assert all(key == mailbox(spelling).key for key, spelling in found.addresses.items())
    assert all(key.endswith("@office.example") for key in found.addresses)
    assert all(str(each).isprintable() for each in found.wrong), "shown on a terminal"


@pytest.mark.parametrize(
    "line", ["@\x1b[31mred", "a\u202eb@other.example", " \x1b[2J@", "x" * 1_000_000, " @" * 500_000]
)
def test_a_wrong_line_is_shown_in_one_short_line(line: str) -> None:
    """Nothing in a file speaks to the terminal, or fills it."""
    (wrong,) = read(f"first@other.example\n{line}\n".encode(), "office.example").wrong[1:]
    assert str(wrong).isprintable()
    assert len(str(wrong)) < 1200


def test_a_long_file() -> None:
    """100,000 lines are all read, and those among them that are wrong are told by their numbers."""
    lines = [f"user{number}@office.example OK" for number in range(100_000)]
    lines[77_776] = "nobody"
    found = read("\n".join(lines).encode(), "office.example")
    assert len(found.addresses) == 99_999
    assert [str(each) for each in found.wrong] == ["line 77777: 'nobody' is no mail address"]
