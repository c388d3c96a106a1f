"""These tests need Debian, root and apt; elsewhere each one is skipped and says why.

All share one backup: starting it would be most of their time. Each has mails with tokens of its own.
"""

from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from tests.helpers.zone import Zone
from tests.real import debian, room
from tests.real.place import EVE, REAL_ANN, REAL_SIZE, ZOE, ZONE, Place, place
from tests.real.ports import free_address
from tests.real.postfix import Postfix


@cache
def _not_here() -> str:
    return debian.missing() or room.refused()


@cache
def _unpacked(program: str) -> Path | str:
    try:
        return debian.unpacked(program)
    except debian.Unfetchable as error:
        return str(error)


@pytest.fixture(scope="session")
def unpacked() -> Callable[[str], Path]:
    """The folder of a program's packages; skips where it cannot be had."""

    def of(program: str) -> Path:
        if reason := _not_here():
            pytest.skip(reason)
        found = _unpacked(program)
        if isinstance(found, str):
            pytest.skip(found)
        return found

    return of


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    if reason := _not_here():
        pytest.skip(reason)
    async with place(tmp_path_factory.mktemp("place")) as at:
        yield at


@pytest_asyncio.fixture(loop_scope="session")
async def at(_place: Place) -> Place:
    """The backup, with nothing heard yet and nothing waiting."""
    await _place.begin()
    return _place


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _real(
    tmp_path_factory: pytest.TempPathFactory, unpacked: Callable[[str], Path], _place: Place
) -> AsyncIterator[Postfix]:
    folder = tmp_path_factory.mktemp("primary")
    postfix = Postfix(
        folder / "room", unpacked("postfix"), [REAL_ANN, EVE, ZOE],
        address="127.0.0.3", port=_place.office.port, message_size_limit=str(REAL_SIZE),
        smtpd_tls_security_level="may", smtpd_tls_chain_files="/etc/chain.pem",
    )  # fmt: skip
    certificate = trustme.CA().issue_cert("mail.real.example")
    (postfix.room.etc / "chain.pem").write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    async with postfix:
        yield postfix


@pytest_asyncio.fixture(loop_scope="session")
async def real(_real: Postfix, at: Place) -> Postfix:
    """The primary of real.example, with empty mailboxes; those to EVE and ZOE get into one there, too."""
    del at  # what it heard is forgotten, too
    await _real.begin()
    return _real


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def resolver() -> AsyncIterator[str]:
    """An /etc/resolv.conf with the same DNS that the backup asks: what real servers look up is answered."""
    if reason := _not_here():
        pytest.skip(reason)
    async with Zone(ZONE, address=free_address(53), port=53) as zone:
        yield f"nameserver {zone.address}\n"
