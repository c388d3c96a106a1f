"""The cache as a whole, without sockets: whatever the primary says, whatever the clocks do, whoever writes
late, the rules about recipients hold. What verify learns is folded by a replica, and a RCPT is answered out
of that."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from libs.mail.address import mailbox
from libs.mail.codec import encode
from libs.mail.knowledge import (
    Health,
    PrimaryFacts,
    PrimaryState,
    RecipientRecord,
    RecipientStatus,
    RecipientTry,
    Status,
)
from libs.mail.records import Domain
from libs.mail.remembered import counting, unpack
from libs.mail.reply import Reply
from libs.mail.settings import complete
from libs.runtime.config import DefaultsPart
from services.ingest import policy
from services.ingest.facts import Accept, Envelope, Facts, OurNames
from services.verify import ageing, asking, learning
from services.verify.ageing import Fate
from services.verify.asking import Asked, Heard, Said
from services.verify.finding import Deliverable, Finding, Undeliverable, Unverifiable, heard_elsewhere
from services.verify.learning import Circumstances, Known, Learnt

DOMAIN = "office.example"
NAMES = [f"{name}@{DOMAIN}" for name in ("ann", "bob", "eve")]
HOUR_S, DAY_S, YEAR_S = 3600.0, 86_400.0, 365 * 86_400.0
AGREE_S = 120.0
YES, NO = Deliverable("250 2.1.5 ok"), Undeliverable("550 5.1.1 no such user")
VAIN = [
    Unverifiable("unreachable", blocked=False),
    Unverifiable("greylisted", blocked=False),
    Unverifiable("policy", blocked=True, reply="554 5.7.1 no"),
]
OURS = OurNames(
    "mx1.backup.example", {"mx1.backup.example": "mx1.backup.example"}, mailbox("ops@ops.example")
)
SETTINGS = complete(DefaultsPart().settings(), Domain(DOMAIN, 1.0, active_since=1.0))
EVE = Envelope("eve@sender.example")
names = st.sampled_from(NAMES)
controls = st.sampled_from([True, False, None])


class Cache(RuleBasedStateMachine):
    """`now`: the true time, and the log's; this process's clock is `skew` ahead of it. `newest`: what the log
    ends with under each key, `replica`: what is kept of it; `era`: of the domain."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.skew = 1_800_000_000.0, 0.0
        self.era = 0
        self.newest: dict[str, bytes | None] = {}
        self.replica: dict[str, bytes] = {}
        self.asked = Asked()
        self.facts: PrimaryFacts | None = None
        self.primary = PrimaryState(DOMAIN, Health.UP, self.now)
        self.late: list[Learnt] = []
        self.said_no: dict[str, list[float]] = {name: [] for name in NAMES}
        self.said_yes: dict[str, float] = {}
        self.said_elsewhere: set[str] = set()  # unknown to a worse MX, at the last question

    # --- as verify does it ---

    @property
    def wall(self) -> float:
        return self.now + self.skew

    @property
    def certain(self) -> bool:
        return abs(self.skew) <= AGREE_S

    @property
    def braked(self) -> bool:
        return self.facts is not None and self.facts.braked

    def get(self, key: str) -> RecipientRecord | None:
        kept = self.replica.get(key)
        found = None if kept is None else unpack(key.encode(), kept)
        return None if found is None or found.era != self.era else found

    def known(self, name: str) -> Known:
        status, tried = self.get(name), self.get(f"try:{name}")
        assert not isinstance(status, RecipientTry | PrimaryFacts)
        assert not isinstance(tried, RecipientStatus | PrimaryFacts)
        return Known(name, status, tried)

    def fold(self, key: str, record: RecipientRecord | None) -> bool:
        """As each replica does; did the record count?"""
        self.newest[key] = value = None if record is None else encode(record)
        if value is None:
            self.replica.pop(key, None)
            return True
        old = self.replica.get(key)
        self.replica[key] = kept = counting(key.encode(), old, value)
        return kept is not old

    def write(self, learnt: Learnt) -> None:
        for record in learnt.records:
            key = f"try:{record.mailbox}" if isinstance(record, RecipientTry) else record.mailbox
            gone = isinstance(record, RecipientTry) and learning.says_nothing(record)
            before = self.get(key)
            if not self.fold(key, None if gone else record):
                self.fold(key, before)  # the owner has the last word

    def learn(self, name: str, finding: Finding, control: bool | None, source: str) -> Learnt:
        c = Circumstances(self.wall, "mx1.backup.example", control, self.braked, source, self.certain)
        learnt = learning.learn(self.known(name), finding, c)
        status = learnt.status and replace(learnt.status, era=self.era)
        return learnt._replace(status=status, tried=learnt.tried and replace(learnt.tried, era=self.era))

    @rule(name=names, finding=st.sampled_from([YES, NO, NO, *VAIN]), control=controls, delivery=st.booleans())
    def hears(self, name: str, finding: Finding, control: bool | None, delivery: bool) -> None:
        """An answer to a callout, or what a delivery saw."""
        source = "delivery" if delivery else "callout"
        self.heard(name, finding)
        known = self.known(name)
        learnt = self.learn(name, finding, None if delivery else control, source)
        outcome = "deliverable" if finding is YES else "undeliverable" if finding is NO else "vain"
        heard = Heard(name, outcome, False, learnt.pending, known.status is not None, not delivery)
        self.asked = asking.heard(self.asked, heard, self.now)
        confirmed = finding is YES and known.status is not None
        said = Said(self.wall, None, finding in (YES, NO), confirmed)
        self.facts = asking.facts(self.facts, DOMAIN, self.asked, said)
        self.write(learnt)
        if isinstance(finding, Unverifiable):
            assert self.known(name).status == known.status
        if finding is YES:
            after = self.known(name).status
            assert after is not None
            assert after.status is Status.DELIVERABLE
        self.said_elsewhere.discard(name)

    @rule(name=names, finding=st.sampled_from([YES, NO, VAIN[0]]))
    def hears_elsewhere(self, name: str, finding: Finding) -> None:
        """The best preference is not reached, a worse one says this: no status comes of it or goes."""
        known, why = self.known(name), Unverifiable("unreachable", blocked=False)
        self.write(self.learn(name, heard_elsewhere(finding, why), None, "callout"))
        assert self.known(name).status == known.status
        self.said_elsewhere.discard(name)
        if finding is NO:
            self.said_elsewhere.add(name)

    def heard(self, name: str, finding: Finding) -> None:
        if finding is YES:
            self.said_yes[name] = self.now
        elif finding is NO:
            self.said_no[name].append(self.now)

    @rule(sweeping=names)
    def sweeps(self, sweeping: str) -> None:
        """An hour's look at what is known of a recipient."""
        known, since = self.known(sweeping), self.primary.since
        if ageing.of_status(known, self.primary, self.wall, certain=self.certain) is Fate.FORGET:
            assert self.certain
            assert known.status is not None
            age_s = (since if self.primary.away else self.now) - known.status.confirmed
            yes = known.status.status is Status.DELIVERABLE
            assert age_s >= (YEAR_S if yes else 3 * DAY_S) - 4 * AGREE_S
            self.fold(sweeping, None)
            if yes:  # forgotten with it, as specified: the next no is about somebody unknown
                self.said_yes.pop(sweeping, None)
        if ageing.of_try(known, self.wall, certain=self.certain) is Fate.FORGET:
            self.fold(f"try:{sweeping}", None)

    # --- what happens ---

    @rule(seconds=st.sampled_from([1.0, 899.0, 901.0, 4 * HOUR_S, 8 * DAY_S, YEAR_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(skew=st.sampled_from([0.0, 0.0, 100.0, -100.0, 2 * DAY_S, -2 * DAY_S, 10 * YEAR_S]))
    def clock_jumps(self, skew: float) -> None:
        self.skew = skew

    @rule(health=st.sampled_from(list(Health)))
    def health_changes(self, health: Health) -> None:
        """`since` is deliver's, whose clock agrees."""
        if health is not self.primary.health:
            self.primary = PrimaryState(DOMAIN, health, self.now)

    @rule(name=names, finding=st.sampled_from([YES, NO]), control=controls)
    def loses_its_claim(self, name: str, finding: Finding, control: bool | None) -> None:
        """What is on its way to the log when another process becomes the owner, comes later."""
        self.heard(name, finding)
        self.late.append(self.learn(name, finding, control, "callout"))
        if finding is YES:  # it is not known yet
            self.said_yes.pop(name)

    @precondition(lambda self: self.late)
    @rule()
    def zombie_writes(self) -> None:
        self.write(self.late.pop(0))

    @rule()
    def is_added_again(self) -> None:
        """The domain is removed, and added: whose it is now, nobody knows."""
        self.era += 1
        self.asked, self.facts = Asked(), None
        self.said_no = {name: [] for name in NAMES}
        self.said_yes, self.said_elsewhere = {}, set()

    @rule()
    def restarts(self) -> None:
        """A log that was compacted, a process that remembers nothing; doubts are found again."""
        self.replica = {}
        for key, value in self.newest.items():
            if value is not None:
                self.replica[key] = counting(key.encode(), None, value)
        tries = [(name, self.known(name).tried) for name in NAMES]
        doubts = [(name.encode(), t.against_since) for name, t in tries if t is not None and t.against_since]
        self.asked = asking.since_start(doubts, self.wall, self.now)

    @precondition(lambda self: self.braked)
    @rule()
    def is_released(self) -> None:
        assert self.facts is not None
        self.asked = replace(self.asked, flips=())
        self.facts = replace(self.facts, braked=False)

    # --- what always holds ---

    @invariant()
    def no_5xx_without_a_cause(self) -> None:
        """A permanent no needs a no of the primary's that no yes followed; while the brake is pulled nobody
        hears one; who is deliverable never does; nor does anybody by a table that is stale."""
        for name in NAMES:
            known = self.known(name)
            for fresh in (True, False):
                f = Facts(
                    OURS,
                    whole=True,
                    settings=SETTINGS,
                    fresh=fresh,
                    status=known.status,
                    tried=known.tried,
                    primary=self.primary,
                    learnt=self.facts,
                )
                to = mailbox(name)
                answers = [
                    policy.at_rcpt(to, f, EVE, self.wall),
                    policy.at_answer(to, f, EVE, self.wall),
                    policy.at_deadline(to, f, EVE, self.wall),
                ]
                at_once, answered, in_vain = map(denies, answers)
                if at_once or in_vain:
                    self.is_right(name, known, fresh)
                elif answered:
                    self.is_right_elsewhere(name, known, fresh)
                if self.braked and known.status is not None and known.status.status is Status.DELIVERABLE:
                    assert isinstance(answers[0], Accept)

    def is_right_elsewhere(self, name: str, known: Known, fresh: bool) -> None:
        """A worse MX does not know it, and nothing that the best one said is against that."""
        assert fresh
        assert not self.braked
        assert not known.deliverable
        assert name in self.said_elsewhere
        assert known.tried is not None
        assert not known.tried.against_since

    def is_right(self, name: str, known: Known, fresh: bool) -> None:
        assert fresh
        assert not self.braked
        assert known.status is not None
        assert known.status.status is Status.UNDELIVERABLE
        noes, yes = self.said_no[name], self.said_yes.get(name)
        assert noes
        if yes is not None:  # it was known: two witnesses, after the last yes
            after = [no for no in noes if no >= yes]
            assert after
            assert after[-1] - after[0] >= learning.LIFETIMES.witness_s - 2 * AGREE_S


def denies(answer: object) -> bool:
    return isinstance(answer, Reply) and answer.code >= 500


TestCache = Cache.TestCase
TestCache.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def test_a_witness_with_a_wrong_clock_is_none() -> None:
    """It would make the first witness days old that spoke a second ago."""
    cache, ann = Cache(), NAMES[0]
    cache.hears(ann, YES, None, delivery=False)
    cache.time_passes(8 * DAY_S)
    cache.clock_jumps(-2 * DAY_S)
    cache.hears(ann, NO, True, delivery=False)
    cache.clock_jumps(0.0)
    cache.time_passes(1.0)
    cache.hears(ann, NO, True, delivery=False)
    cache.no_5xx_without_a_cause()
    cache.time_passes(901.0)
    cache.hears(ann, NO, True, delivery=False)
    status = cache.known(ann).status
    assert status is not None
    assert status.status is Status.UNDELIVERABLE


def test_who_was_forgotten_is_unknown() -> None:
    """A year without a confirmation: nothing is left of the yes, and one no is enough."""
    cache, ann = Cache(), NAMES[0]
    cache.hears(ann, YES, True, delivery=False)
    cache.time_passes(YEAR_S)
    cache.sweeps(ann)
    assert cache.known(ann).status is None
    cache.hears(ann, NO, True, delivery=False)
    cache.no_5xx_without_a_cause()
    status = cache.known(ann).status
    assert status is not None
    assert status.status is Status.UNDELIVERABLE


def test_nothing_is_known_of_a_domain_that_was_added_again() -> None:
    """What was known of the first one's recipients counts for none of the second's, whoever writes it late;
    nor is a late yes contradicted by the second one's no."""
    cache, (ann, bob, eve) = Cache(), NAMES
    cache.hears(ann, YES, None, delivery=False)
    cache.hears(bob, NO, None, delivery=False)
    cache.loses_its_claim(eve, NO, None)
    cache.loses_its_claim(ann, YES, None)
    cache.is_added_again()
    assert [cache.known(name) for name in NAMES] == [Known(name, None, None) for name in NAMES]
    cache.hears(ann, NO, None, delivery=False)
    cache.zombie_writes()
    cache.zombie_writes()
    cache.no_5xx_without_a_cause()
    cache.restarts()
    status = cache.known(ann).status
    assert status is not None
    assert (status.status, cache.known(eve).status) == (Status.UNDELIVERABLE, None)


def test_a_late_no_changes_nothing() -> None:
    """A former owner heard a no when nothing was known; it reaches the log behind the yes of the next one."""
    cache, ann = Cache(), NAMES[0]
    cache.loses_its_claim(ann, NO, None)
    cache.time_passes(1.0)
    cache.hears(ann, YES, None, delivery=False)
    cache.zombie_writes()
    cache.no_5xx_without_a_cause()
    cache.restarts()
    status = cache.known(ann).status
    assert status is not None
    assert status.status is Status.DELIVERABLE
