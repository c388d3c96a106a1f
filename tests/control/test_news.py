"""Of what a domain's contact is told, and when.

Case files (cases/news): what happens to a domain in the course of time, and what is told when, minute by
minute; README.case explains them, and runs. What holds for whatever happens is tried with hypothesis.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.mail.hints import Us
from libs.mail.knowledge import Callouts, Health, PrimaryFacts, PrimaryState
from libs.mail.records import Language
from services.control.letters import address_letter, letter
from services.control.news import (
    DAY_S,
    FORGOTTEN_S,
    SETTLED_S,
    Known,
    Limits,
    News,
    Telling,
    Told,
    addressee,
    due,
    rather_us,
)

FOLDER = Path(__file__).parent
CASES = sorted((FOLDER / "cases" / "news").glob("*.case"))
MIDNIGHT, MINUTE = 1_799_971_200.0, 60.0  # 2027-01-15 00:00 UTC
DOMAIN, LIMITS = "office.example", Limits()
SECONDS = {"d": DAY_S, "h": 3600.0, "m": 60.0}


def seconds(text: str) -> float:
    """`2d3h10m`."""
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)([dhm])", text))


class World:
    """A domain, and the log of what was told of it."""

    def __init__(self) -> None:
        self.now = MIDNIGHT
        self.known = Known(MIDNIGHT - DAY_S, False, 30 * DAY_S)
        self.log: list[Telling] = []
        self.told = Told()

    def primary(self) -> PrimaryState:
        return self.known.primary or PrimaryState(DOMAIN, Health.UP, self.now)

    def turns(self, health: Health) -> None:
        """As deliver has it: a change of its kind leaves the beginning of an outage as it is."""
        before = self.primary()
        begins = Health.UP in (health, before.health) and health is not before.health
        since = self.now if begins else before.since
        self.known = self.known._replace(primary=replace(before, health=health, since=since))

    def does(self, word: str, rest: str) -> None:
        known, primary = self.known, self.primary()
        match word:
            case "up" | "down" | "deferring" | "refusing":
                self.turns(Health(word))
            case "waiting":
                self.known = known._replace(primary=replace(primary, waiting=int(rest), oldest=self.now))
            case "empty":
                self.known = known._replace(primary=replace(primary, waiting=0, oldest=0.0))
            case "braked":
                self.known = known._replace(primary=replace(primary, braked=True, braked_since=self.now))
            case "released":
                self.known = known._replace(primary=replace(primary, braked=False, braked_since=0.0))
            case "blocked" | "open":
                self.known = known._replace(facts=PrimaryFacts(DOMAIN, Callouts(word), self.now))
            case "parked":
                self.known = known._replace(parked=self.now)
            case "stopped" | "resumed":
                self.known = known._replace(stopped=word == "stopped")
            case "lifetime":
                self.known = known._replace(lifetime_s=seconds(rest))
            case "restart":
                self.told = Told(self.log)
            case "added":
                self.known = Known(self.now, False, 30 * DAY_S)
            case "end":
                pass
            case _:
                raise ValueError(word)

    def look(self) -> list[Telling]:
        """What is told now."""
        found = [each._replace(at=self.now) for each in due(self.known, self.told, self.now, LIMITS)]
        for each in found:
            self.told.add(each)
        self.log += found
        return found


def played(text: str) -> Iterator[str]:
    """`TIME WHAT` lines; what is told, as lines of the same kind."""
    world = World()
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        at, word, rest = (*line.split(" ", 2), "")[:3]
        while world.now < MIDNIGHT + seconds(at):
            yield from (f"{clock(world.now)} {each.news}" for each in world.look())
            world.now += MINUTE
        world.does(word, rest)


def clock(now: float) -> str:
    minutes = round((now - MIDNIGHT) / MINUTE)
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "m")]
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0m"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    happens, _, wanted = path.read_text("utf-8").partition("---\n")
    assert list(played(happens)) == [line for line in wanted.splitlines() if not line.startswith("#")]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            "up down deferring refusing waiting empty braked released blocked open parked stopped resumed "
            "restart".split()
        ),
        st.sampled_from([1, 5, 29, 31, 90, 400, 1500, 6000]),
    ),
    min_size=1,
    max_size=30,
)


@given(STEPS)
def test_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Each thing once at most, over restarts, too; few in a day; the end of an outage only after its
    beginning, which lasted; and a second end within a day only after it held."""
    world = World()
    for word, minutes in steps:
        world.does(word, "1")
        for _ in range(0, minutes, 5):
            for each in world.look():
                primary = world.primary()
                if each.news in (News.DOWN, News.REFUSING):
                    assert world.now - primary.since >= LIMITS.after_s
                if each.news == News.BACK:
                    assert primary.health is Health.UP
                    ends = [one.at for one in world.log if one.news == News.BACK and one is not each]
                    held = SETTLED_S if any(at >= world.now - DAY_S for at in ends) else LIMITS.back_s
                    assert world.now - primary.since >= held
            world.now += 5 * MINUTE
    keys = [(each.news, each.key) for each in world.log]
    assert len(set(keys)) == len(keys)
    assert len(Told(world.log)._keys) == len(keys)
    for each in world.log:
        assert sum(each.at - DAY_S < one.at <= each.at for one in world.log) <= LIMITS.most
    outages = [each.news for each in world.log if each.news in (News.DOWN, News.REFUSING, News.BACK)]
    assert all((news == News.BACK) == bool(at % 2) for at, news in enumerate(outages))


LONG_STEPS = st.lists(
    st.tuples(
        st.sampled_from("up down refusing waiting empty blocked open stopped resumed forgetting".split()),
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=12,
)


@given(LONG_STEPS)
def test_for_months(steps: list[tuple[str, int]]) -> None:
    """Though the log forgets after 30 days, and controls begin anew, no outage is told twice."""
    world, expiring = World(), list[float]()
    for word, days in steps:
        if word == "forgetting":
            world.told = Told(each for each in world.log if each.at > world.now - FORGOTTEN_S)
        else:
            world.does(word, "1")
        for _ in range(days * 4):
            for each in world.look():
                if each.news == News.EXPIRING and world.primary().health is not Health.UP:
                    expiring.append(world.primary().since)
            world.now += DAY_S / 4
    keys = [(each.news, each.key) for each in world.log]
    assert len(set(keys)) == len(keys)
    assert len(set(expiring)) == len(expiring)


@pytest.mark.parametrize(
    ("away", "up", "of_one", "long", "ours"),
    [
        (11, 9, 0, 0, True),
        (10, 10, 0, 0, False),
        (11, 8, 0, 0, False),  # too few to tell
        (1, 0, 50, 0, False),  # of one server
        (10, 10, 1, 0, True),
        (1, 19, 0, 50, False),  # they have been away for long
    ],
)
def test_rather_us(away: int, up: int, of_one: int, long: int, ours: bool) -> None:
    """More than half of twenty servers or more."""
    now = MIDNIGHT + 2 * DAY_S
    states = [PrimaryState(f"d{at}.example", Health.DOWN, now - 60) for at in range(away)]
    states += [PrimaryState(f"u{at}.example", Health.UP, MIDNIGHT) for at in range(up)]
    states += [PrimaryState(f"o{at}.example", Health.DOWN, now, mx=("mx.example",)) for at in range(of_one)]
    states += [PrimaryState(f"l{at}.example", Health.DOWN, MIDNIGHT) for at in range(long)]
    assert rather_us(states, now) is ours


def test_who_is_told() -> None:
    """The contact; without one the operators, and at the end of an outage the domain's own postmaster."""
    assert (
        addressee(News.DOWN, DOMAIN, "owner@elsewhere.example", "ops@isp.example")
        == "owner@elsewhere.example"
    )
    assert addressee(News.DOWN, DOMAIN, "", "ops@isp.example") == "ops@isp.example"
    assert addressee(News.BACK, DOMAIN, "", "ops@isp.example") == f"postmaster@{DOMAIN}"


US = Us(("192.0.2.1",), "mx1.backup.example", ("mx2.backup.example",))


def letters(language: Language) -> Iterator[str]:
    """Every letter, as it is read."""
    now = MIDNIGHT + DAY_S
    state = PrimaryState(
        DOMAIN, Health.DOWN, MIDNIGHT, waiting=3, oldest=MIDNIGHT, last_reply="CONNECT: timeout"
    )
    blocked = "554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org"
    facts = PrimaryFacts(DOMAIN, Callouts.BLOCKED, MIDNIGHT, reply=blocked, server="postfix")
    up = replace(state, health=Health.UP, since=now)
    for news, primary, known in (
        (News.DOWN, state, None),
        (
            News.DOWN,
            replace(state, health=Health.DEFERRING, last_reply="451 4.3.0 {try} later\r\nBcc: x"),
            None,
        ),
        (News.REFUSING, replace(state, health=Health.REFUSING, last_reply=blocked), facts),
        (News.REFUSING, replace(state, health=Health.REFUSING, last_reply=""), None),
        (News.BACK, replace(up, waiting=0), None),
        (News.BACK, replace(up, waiting=0, waited=3, handed=3), None),
        (News.BACK, replace(up, waiting=2, waited=3, handed=1), None),
        (News.BACK, replace(up, waiting=0, waited=3, handed=1), None),
        (News.BRAKE, replace(up, braked=True, braked_since=MIDNIGHT), None),
        (News.BLOCKING, up, facts),
        (News.EXPIRING, state, None),
        (News.PARKED, up, None),
    ):
        about = Known(1.0, False, 30 * DAY_S, primary, known)
        written = letter(DOMAIN, Telling(news, "1", MIDNIGHT), about, US, language, now, 2)
        yield f"=== {written.subject}\n{written.text}\n"
    written = address_letter(
        DOMAIN, ["shop.example"], "mx2.backup.example", "192.0.2.20", "2027-02-14", US, language
    )
    yield f"=== {written.subject}\n{written.text}\n"


@pytest.mark.parametrize("language", Language)
def test_letters(language: Language) -> None:
    """As in letters/: `GOLDEN=1 pytest tests/control/test_news.py` writes them again. A subject is ASCII, and
    what a stranger wrote adds no line."""
    text = "\n".join(letters(language))
    golden = FOLDER / "letters" / f"{language}.txt"
    if os.environ.get("GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert all(line.isascii() for line in text.splitlines() if line.startswith("==="))
    assert "\nBcc" not in text
