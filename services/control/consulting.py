"""The doctor is asked about a domain: he is told what is known here, and what he saw is put into words."""

from typing import Any

from libs.log.table import Table
from libs.mail.knowledge import PrimaryState
from libs.mail.settings import complete
from libs.runtime.deps import Deps
from libs.smtp.route import said
from services.control import domains
from services.control.diagnoses import report
from services.control.doctor import Doctor
from services.control.examined import Known
from services.control.register import Register
from services.control.roll import Rolls


class Consulting:
    """Of all domains, relay domains and others."""

    def __init__(self, deps: Deps, register: Register, rolls: Rolls, primaries: Table[PrimaryState]) -> None:
        self._deps, self._register, self._rolls, self._primaries = deps, register, rolls, primaries
        self._doctor = Doctor(deps.config, deps.dns, deps.clock)

    async def about(self, text: str, language: str) -> dict[str, Any]:
        """What is wrong with a domain, and what to do: see diagnoses.report. Raises Refused, LogError."""
        name, words = domains.named(text), domains.language(language)
        defaults, us = self._deps.config.defaults, self._deps.config.us
        domain = self._register.book().domains.get(name)
        if domain is None:
            known = Known(max_size=defaults.max_size)
            return report(await self._doctor.examine(name, known, None), us, words)
        settings = complete(defaults.settings(), domain)
        deliverable, facts = await self._rolls.deliverable(name)
        known = Known(
            registered=True,
            active=bool(domain.active_since),
            max_size=settings.max_size,
            deliverable=len(deliverable),
            primary=self._primaries.get(name.encode()),
            facts=facts,
        )
        place = said(settings.primary_host, settings.tls_name)
        someone = next(iter(deliverable), "")
        return report(await self._doctor.examine(name, known, place, someone), us, words)
