"""The doctor is asked about a domain: he is told what is known here, and what he saw is kept and put into
words."""

from typing import Any

from libs.log.table import Table
from libs.mail.knowledge import PrimaryFacts, PrimaryState
from libs.mail.records import Domain
from libs.mail.settings import complete
from libs.runtime.deps import Deps
from libs.smtp.route import said
from services.control import domains
from services.control.checkups import Checkups
from services.control.diagnoses import report
from services.control.doctor import Doctor
from services.control.domains import Refused
from services.control.examined import Examined, Known
from services.control.recipients import Few
from services.control.register import Register
from services.control.roll import Rolls


class Consulting:
    """Of all domains, relay domains and others."""

    def __init__(
        self, deps: Deps, register: Register, rolls: Rolls, primaries: Table[PrimaryState], checkups: Checkups
    ) -> None:
        self._deps, self._register, self._rolls, self._primaries = deps, register, rolls, primaries
        self._checkups = checkups
        self._doctor = Doctor(deps.config, deps.dns, deps.clock)

    async def about(self, text: str, language: str, *, last: bool = False) -> dict[str, Any]:
        """What is wrong with a domain, and what to do: see diagnoses.report; and when it was `examined` (wall
        seconds). `last`: what was seen last, without another look. Raises Refused, LogError."""
        name, words = domains.named(text), domains.language(language)
        config, domain = self._deps.config, self._register.book().domains.get(name)
        if last:
            kept = self._checkups.last(name)
            if kept is None:
                raise Refused(f"{name} has not been examined since this control began to lead")
            return report(kept.seen(), config.us, words) | {"examined": kept.at}
        at = self._deps.clock.wall()
        if domain is None:
            known = Known(max_size=config.defaults.max_size)
            seen = await self._doctor.examine(name, known, None)
        else:
            people, facts = await self._rolls.deliverable(name)
            seen = await self.examine(domain, Few(len(people), next(iter(people), "")), facts)
        return report(seen, config.us, words) | {"examined": at}

    async def examine(self, domain: Domain, people: Few, facts: PrimaryFacts | None) -> Examined:
        """Look at a relay domain, and keep what was seen."""
        name, settings = domain.domain, complete(self._deps.config.defaults.settings(), domain)
        known = Known(
            registered=True,
            active=bool(domain.active_since),
            max_size=settings.max_size,
            deliverable=people.number,
            primary=self._primaries.get(name.encode()),
            facts=facts,
        )
        place = said(settings.primary_host, settings.tls_name)
        seen = await self._doctor.examine(name, known, place, people.someone)
        if name in self._register.book().domains:  # it may have been removed meanwhile
            self._checkups.keep(seen)
        return seen
