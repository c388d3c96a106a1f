"""What is remembered and published of each primary: may it be asked now, what did asking teach."""

from msgspec.structs import replace

from libs import topics
from libs.log.contract import Claim
from libs.mail.knowledge import PrimaryFacts
from libs.mail.records import Unbrake
from libs.mail.reply import parse_line
from libs.mail.trouble import server
from libs.runtime.deps import Deps
from services.verify import asking
from services.verify.ageing import PROBE_AGAIN_S, probe_is_due
from services.verify.asking import Asked, Heard, Offered
from services.verify.finding import Deliverable, Finding, Unverifiable
from services.verify.known import Known
from services.verify.storing import Storing


class Primaries:
    """By domain."""

    def __init__(self, deps: Deps, known: Known, storing: Storing) -> None:
        self._deps, self._known, self._storing = deps, known, storing
        self._asked: dict[str, Asked] = {}
        self._offered: dict[str, Offered] = {}
        self._flushed: dict[str, float] = {}
        self._eras: dict[str, int | None] = {}

    def gained(self, claim: Claim) -> None:
        """What was remembered when its domains were ours before is not what another owner heard since."""
        for domain in tuple(self._asked):
            if topics.partition_of(domain, self._deps.partitions) == claim.partition:
                del self._asked[domain]

    def refusal(self, domain: str, *, known: bool, anew: bool = False, elsewhere: bool = False) -> str:
        """Why nothing is dialled, or ""; `known`: it does not count as a guess; `elsewhere`: as in hold()."""
        settings = self._known.settings(domain)
        if settings is None:
            return "no domain"
        if not settings.active or settings.suspended:
            return "suspended" if settings.suspended else "pending"
        asked, mono = self._of(domain), self._deps.clock.mono()
        facts = self._known.facts(domain)
        return asking.hold(asked, facts, known=known, now=mono, anew=anew, elsewhere=elsewhere)

    def is_to_be_probed(self, domain: str) -> bool:
        """Is it time to ask for a mailbox that nobody has, before the next recipient?"""
        return self._of(domain).suspect or probe_is_due(self._known.facts(domain), self._deps.clock.wall())

    def may_be_probed(self, domain: str, *, gentle: bool) -> bool:
        """Is a mailbox that nobody has to be asked for? Not where nobody is to be asked, nor, where somebody
        waits, once more just now."""
        asked, now = self._of(domain), self._deps.clock.mono()
        lately = not gentle and now - asked.probed < PROBE_AGAIN_S and not asked.suspect
        if lately or self.refusal(domain, known=True, anew=True):
            return False
        if not gentle:
            self._asked[domain] = replace(asked, probed=now, accepted=0)
        return True

    # --- what sessions and deliveries say ---

    def offered(self, domain: str, offered: Offered) -> None:
        """What the best MX said to EHLO."""
        self._offered[domain] = offered

    def failed(self, domain: str, finding: Unverifiable) -> None:
        """No address of the best preference took us to MAIL."""
        self._asked[domain] = asking.unreachable(self._of(domain), finding.reason, self._deps.clock.mono())

    def beside(self, domain: str, *, answers: bool) -> None:
        """A worse preference was dialled in the place of the best one."""
        self._asked[domain] = replace(self._of(domain), beside=answers)

    def held(self, domain: str) -> Unverifiable | None:
        """Why a worse preference is asked in the place of the best one now, or None."""
        reason = asking.held(self._of(domain), self._deps.clock.mono())
        return Unverifiable(reason, blocked=False) if reason else None

    def heard(self, claim: Claim, domain: str, heard: Heard, finding: Finding) -> None:
        """An answer about one recipient."""
        asked = self._asked[domain] = asking.heard(self._of(domain), heard, self._deps.clock.mono())
        said = asking.Said(
            self._deps.clock.wall(),
            self._offered.get(domain),
            not isinstance(finding, Unverifiable),
            isinstance(finding, Deliverable) and heard.known,
            host=self._deps.config.host.name,
            greylister=server("", parse_line(finding.reply)) if heard.outcome == "greylisted" else None,
        )
        old = self._known.facts(domain)
        self._publish(claim, domain, old, asking.facts(old, domain, asked, said))

    def denied(self, claim: Claim, domain: str, *, late: bool) -> None:
        """A delivery heard of an unknown mailbox: after the final dot (`late`) or at RCPT."""
        old = self._known.facts(domain)
        new = asking.rejects_late(old, domain, self._deps.clock.wall(), late=late)
        self._publish(claim, domain, old, new)

    def probed(self, claim: Claim, domain: str, finding: Finding) -> None:
        """The answer about a mailbox that nobody has."""
        accepted = isinstance(finding, Deliverable)
        if isinstance(finding, Unverifiable) or (accepted and finding.reply[:1] != "2"):
            return  # it said nothing, or that whoever has no mailbox has no room left
        old, now = self._known.facts(domain), self._deps.clock.wall()
        self._publish(claim, domain, old, asking.probed(old, domain, now, accepted=accepted))

    def is_up(self, domain: str) -> None:
        """It answered at RCPT: deliver, which believes it away, is asked to try at once."""
        primary = self._known.primary(domain)
        if primary is None or not primary.away:
            return
        if self._flushed.get(domain) != primary.since:
            self._flushed[domain] = primary.since
            self._storing.flush(domain)

    def released(self, claim: Claim, release: Unbrake) -> None:
        """Somebody says that the primary is right about its recipients."""
        old = self._known.facts(release.domain)
        self._asked[release.domain] = replace(self._of(release.domain), flips=())
        if old is not None:
            self._publish(claim, release.domain, old, replace(old, braked=False))
        braked = old is not None and old.braked
        self._storing.released(release.domain, release.request_id, release.by, braked=braked)

    def _of(self, domain: str) -> Asked:
        era = self._known.era(domain)
        if domain in self._asked and self._eras.get(domain) != era:  # it is another domain of that name
            del self._asked[domain]
            self._offered.pop(domain, None)
        self._eras[domain] = era
        if domain not in self._asked:
            doubts, clock = self._known.doubts(domain.encode()), self._deps.clock
            self._asked[domain] = asking.since_start(doubts.items(), clock.wall(), clock.mono())
        return self._asked[domain]

    def _publish(self, claim: Claim, domain: str, old: PrimaryFacts | None, new: PrimaryFacts) -> None:
        if new == old:
            return
        if old is None or _news(old) != _news(new):
            self._storing.say_primary(new)
        self._storing.store(claim, b"@" + domain.encode(), domain, [new])


def _news(facts: PrimaryFacts) -> tuple[object, ...]:
    """What an event is worth: how it takes our questions, and who greylists them."""
    return facts.callouts, facts.braked, facts.greylisted > 0, facts.greylister
