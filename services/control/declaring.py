"""The register made as files declare it, and written as such a file."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import to_builtins

from services.control import declared
from services.control.declared import Planned, Settings
from services.control.domains import Malformed
from services.control.register import Register

_FORMS = {"toml": declared.to_toml, "csv": declared.to_csv}


class Declaring:
    """`waiting`: mails of each domain in the queue."""

    def __init__(self, register: Register, waiting: Callable[[], Mapping[str, int]]) -> None:
        self._register, self._waiting = register, waiting

    def planned(self, wanted: Mapping[str, Settings], *, prune: bool) -> dict[str, Any]:
        """What apply would do: see declared.Planned. Raises Refused."""
        return _plain(declared.plan(self._register.book(), wanted, self._waiting(), prune=prune))

    async def apply(self, wanted: Mapping[str, Settings], *, prune: bool) -> dict[str, Any]:
        """What was done. Raises Refused, LogError."""
        return _plain(await self._register.apply(wanted, self._waiting(), prune=prune))

    def export(self, form: str) -> dict[str, str]:
        """`text`: all relay domains. Raises Malformed."""
        if form not in _FORMS:
            raise Malformed(f"format must be {' or '.join(_FORMS)}, not {form!r}")
        return {"text": _FORMS[form](self._register.book().domains.values())}


def _plain(planned: Planned) -> dict[str, Any]:
    plain: dict[str, Any] = to_builtins(planned)
    return plain
