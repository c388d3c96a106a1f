"""The process under fuzz (target.py), and what it says."""

import asyncio
import json
import ssl
import sys
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import trustme

ROOT = Path(__file__).parent.parent
START_S, MARK_S = 60.0, 300.0


class Mark(NamedTuple):
    """`resident`: octets of memory; `errors`: exceptions of ours in sessions; `held`: octets of content in
    memory."""

    resident: int
    errors: int
    held: int


class Queued(NamedTuple):
    """A mail in `queue`; `content`: its SHA-256."""

    id: str
    recipients: int
    content: str


class House:
    """`async with House(folder)`. `queued`: client address -> its mails, as far as they were told; `tls`: for
    clients."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.queued: defaultdict[str, list[Queued]] = defaultdict(list)
        authority = trustme.CA()
        self.tls = ssl.create_default_context()
        authority.configure_trust(self.tls)
        issued = authority.issue_cert("mx1.backup.example")
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")

    async def __aenter__(self) -> Self:
        self._log = (self._folder / "log").open("wb")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fuzz.target", str(self._folder), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=self._log, cwd=ROOT,
        )  # fmt: skip
        self._marks: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())
        try:
            self.port = int((await self._next(START_S))["port"])
        except BaseException:
            await self._end(kill=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(kill=kind is not None)

    async def _end(self, *, kill: bool) -> None:
        assert self._process.stdin is not None
        if kill and self._process.returncode is None:
            self._process.kill()
        self._process.stdin.close()
        await self._process.wait()
        await self._reader
        self._log.close()

    async def mark(self) -> Mark:
        """Once all mails committed so far are in `queued`."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        said = await self._next(MARK_S)
        return Mark(int(said["resident"]), int(said["errors"]), int(said["held"]))

    def complaints(self) -> list[str]:
        """Lines of its log that speak of a fault of ours."""
        lines = (self._folder / "log").read_text("utf-8", "replace").splitlines()
        return [line for line in lines if not line.startswith("{") or json.loads(line)["level"] == "error"]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "id" in said:
                self.queued[said["client"]].append(Queued(said["id"], said["recipients"], said["content"]))
            else:
                self._marks.put_nowait(said)
        self._marks.put_nowait({})

    async def _next(self, within: float) -> dict[str, Any]:
        async with asyncio.timeout(within):
            said = await self._marks.get()
        if not said:
            raise RuntimeError("ingest has ended:\n" + "\n".join(self.complaints()[-20:]))
        return said
