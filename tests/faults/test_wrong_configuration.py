"""Wrong configuration and names that are no domains: one clear sentence and an exit code, nothing starts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers.running import Running


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A configuration; nothing is started."""
    running = Running(tmp_path, dns=[("127.0.0.1", 53)], dial_port=25)
    try:
        yield running
    finally:
        await running.close()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[smtp]\n", "[smtp]\ncolour = 1\n", ("smtp.colour", "is no setting")),
        ("timeout_s = 2.0", 'timeout_s = "soon"', ("dns.timeout_s", "must be a number", "'soon'")),
        ("port = 25", "port = 70000", ("dial.port", "70000")),
        ('activation = "trusted"', 'activation = "always"', ("installation.activation", "'always'")),
        ('name = "mx1.backup.example"', 'name = "mx 1"', ("host.name", "'mx 1' is no host name")),
        ("[log]", "[log", ("is not TOML",)),
    ],
)
async def test_a_wrong_file(running: Running, old: str, new: str, words: tuple[str, ...]) -> None:
    """The command says which setting of which file is wrong and how, on one line, and ends with 2."""
    text = running.config.read_text()
    assert old in text
    running.config.write_text(text.replace(old, new))
    said = await running.ask("solo")
    assert said.code == 2, said
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("backupmx: ")
    assert all(word in said.err for word in (str(running.config), *words)), said.err
    assert not (running.folder / "state").exists()


async def test_a_wrong_variable(running: Running) -> None:
    """A variable that overrides a setting wrongly is named."""
    running.environment["BACKUPMX_SMTP__LISTEN"] = '["127.0.0.1:smtp"]'
    said = await running.ask("solo")
    assert said.code == 2, said
    assert "BACKUPMX_SMTP__LISTEN" in said.err
    assert said.err.count("\n") == 1


async def test_a_domain_that_is_none(tmp_path: Path) -> None:
    """`domain add` refuses what is no domain with a sentence, and the list stays empty."""
    async with Running(tmp_path, dns=[("127.0.0.1", 53)], dial_port=25) as running:
        for name in (
            "office..example",
            "ann@office.example",
            "127.0.0.1",
            "a b.example",
        ):
            said = await running.ask("domain", "add", name)
            assert said.code in (1, 2), (name, said)
            assert said.err.count("\n") == 1, said.err
            assert name in said.err
        assert not (await running.ask("domain", "list", "--json")).rows
