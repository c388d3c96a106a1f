"""DMARC as a function of DNS: trees of records against the RFC read a second time, records of chance."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.author import Author
from services.verify.dmarc import Checked, Identifier, Policy, Record, Result, check, identifiers, parse
from services.verify.spf import FOR_EVER, Missing, Question
from services.verify.spf import Result as Spf


class Said(NamedTuple):
    kind: str
    records: Sequence[str] = ()
    expires: float = 1000.0


class World:
    """DNS: `texts` by the domain whose DMARC record they are, `trouble` names that do not answer, `absent`
    names that are NXDOMAIN. As a cache it holds what was `asked` for; `rounds`: how often that was needed."""

    def __init__(
        self, texts: Mapping[str, Sequence[str]], trouble: Sequence[str] = (), absent: Sequence[str] = ()
    ) -> None:
        self._texts, self._trouble, self._absent = texts, trouble, absent
        self.asked: list[Question] = []
        self.rounds = 0

    def answer(self, name: str, rtype: str) -> Said:
        if name in self._trouble:
            return Said("timeout", expires=5.0)
        if rtype == "TXT":
            texts = self._texts.get(name.removeprefix("_dmarc."), ())
            return Said("ok", texts) if texts else Said("nxdomain")
        return Said("nxdomain" if name in self._absent else "nodata")

    def cached(self, name: str, rtype: str) -> Said:
        if (name, rtype) not in self.asked:
            raise Missing((name, rtype))
        return self.answer(name, rtype)

    def check(self, author: Author, known: Sequence[Identifier]) -> tuple[Checked, float]:
        """As the caller of `check` does it: find what is missing, check again."""
        while True:
            try:
                return check(author, known, self.cached)
            except Missing as missing:
                questions = missing.questions
            new = [question for question in questions if question not in self.asked]
            assert new, "nothing new is asked for"
            self.asked += new
            self.rounds += 1


def of(domain: str) -> Author:
    return Author((domain,))


def spf(domain: str) -> Identifier:
    return Identifier("spf", domain)


# --- the tree walk, read a second time ---

DOMAINS = st.lists(st.sampled_from("ab"), min_size=1, max_size=11).map(".".join)
RECORDS = st.sampled_from(["", "; psd=y", "; psd=n", "; psd=u"])


def steps(domain: str) -> list[str]:
    """RFC 9989 section 4.10, steps 1, 3, 4 and 7."""
    names = [domain]
    count = len(domain.split("."))
    target = domain.split(".")[1:] if count < 8 else domain.split(".")[count - 7 :]
    while target:
        names.append(".".join(target))
        target = target[1:]
    return names


def organization(domain: str, tree: Mapping[str, str]) -> str:
    """Section 4.10.2."""
    seen = []
    for name in steps(domain):
        if name in tree:
            seen.append(name)
            if "psd=y" in tree[name] or "psd=n" in tree[name]:
                break
    for name in seen:  # from the longest to the shortest
        if "psd=n" in tree[name]:
            return name
        if "psd=y" in tree[name] and name != domain:
            labels = domain.split(".")
            return ".".join(labels[len(labels) - len(name.split(".")) - 1 :])
    return min(seen, key=lambda name: name.count("."), default=domain)


@given(st.dictionaries(DOMAINS, RECORDS, max_size=6), DOMAINS, DOMAINS)
def test_who_is_of_one_organization(tree: dict[str, str], author: str, other: str) -> None:
    """RFC 9989 section 4.10.2: whatever records there are, relaxed alignment is one organizational domain."""
    texts = {domain: [f"v=DMARC1; p=reject{more}"] for domain, more in tree.items()}
    found, _ = World(texts).check(of(author), [spf(other)])
    if author not in tree and not any(name in tree for name in steps(author)):
        assert found.result is Result.NONE
    else:
        aligned = author == other or organization(author, tree) == organization(other, tree)
        assert found.result is (Result.PASS if aligned else Result.FAIL)
        assert found.policy is Policy.REJECT


@given(st.dictionaries(DOMAINS, RECORDS, max_size=6), DOMAINS, DOMAINS)
def test_a_walk_has_eight_questions(tree: dict[str, str], author: str, other: str) -> None:
    """RFC 9989 section 4.10: eight at most, for the author and for one who authenticated, in few rounds."""
    world = World({domain: [f"v=DMARC1; p=reject{more}"] for domain, more in tree.items()})
    world.check(of(author), ())
    assert len(world.asked) <= 8
    world.check(of(author), [spf(other)])
    assert len(world.asked) <= 8 + 8
    assert world.rounds <= 4


@given(
    st.dictionaries(DOMAINS, RECORDS, max_size=4),
    DOMAINS,
    st.lists(DOMAINS, max_size=3),
    st.lists(DOMAINS, max_size=3),
)
def test_trouble_changes_nothing_to_the_worse(
    tree: dict[str, str], author: str, others: list[str], silent: list[str]
) -> None:
    """RFC 9989 section 5.3.6: with DNS that does not answer the result is the same, or temperror; nothing
    fails or passes that would not otherwise."""
    texts = {domain: [f"v=DMARC1; p=reject{more}"] for domain, more in tree.items()}
    known = [spf(other) for other in others]
    whole, _ = World(texts).check(of(author), known)
    partly, until = World(texts, [f"_dmarc.{name}" for name in silent]).check(of(author), known)
    assert partly.result in (whole.result, Result.TEMPERROR)
    assert until == 5.0 or partly.result is not Result.TEMPERROR


@given(st.dictionaries(DOMAINS, RECORDS, max_size=4), DOMAINS, DOMAINS)
def test_who_may_have_authenticated_is_never_refused(tree: dict[str, str], author: str, other: str) -> None:
    """Rule 7: what would pass if it were known to have authenticated is temperror while that is not known."""
    texts = {domain: [f"v=DMARC1; p=reject{more}"] for domain, more in tree.items()}
    sure, _ = World(texts).check(of(author), [spf(other)])
    unsure, _ = World(texts).check(of(author), [Identifier("spf", other, sure=False)])
    wanted = Result.TEMPERROR if sure.result is Result.PASS else sure.result
    assert unsure.result is wanted


# --- records ---

TAGS = st.sampled_from(["v", "p", "sp", "np", "t", "psd", "adkim", "aspf", "rua", "pct", "x", "", "P", " p "])
VALUES = st.sampled_from(
    ["reject", "none", "quarantine", "Reject", "y", "n", "s", "r", "", "mailto:a@b.example", "\xe9", "=", " "]
)
LISTS = st.lists(st.tuples(TAGS, st.sampled_from(["=", " = ", ""]), VALUES).map("".join), max_size=8)


@given(LISTS.map(lambda tags: "v=DMARC1;" + ";".join(tags)) | st.text(max_size=60))
def test_a_record_asks_for_what_it_says(text: str) -> None:
    """RFC 9989 section 4.8: nothing raises; reject is asked for only where some tag says it, and nothing at
    all by a record that is wrong."""
    record = parse(text)
    if record is None:
        return
    policies = {record.policy, record.subdomains, record.nonexistent}
    assert Policy.REJECT not in policies or "reject" in text.lower()
    if record.defect:
        assert policies == {Policy.NONE}


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("v=DMARC1", Record()),
        ("V=DMARC1;p=none", Record()),
        ("v=DMARC1;p=reject", Record(*[Policy.REJECT] * 3)),
        ("v=DMARC1;sp=reject", Record(Policy.NONE, Policy.REJECT, Policy.REJECT)),
        ("v=DMARC1;np=reject;t=y", Record(nonexistent=Policy.REJECT, testing=True)),
        ("v=DMARC1;adkim=s;aspf=r;psd=Y", Record(strict_dkim=True, psd="y")),
        ("v=DMARC1;adkim=s;adkim=s", Record()),
        ("v=DMARC1;p=x;psd=n", Record(psd="n", defect="malformed DMARC record")),
        ("v=DMARC1;p=x;psd=n;rua=mailto:a@b", Record(psd="n")),
        ("v=DMARC1;p=reject;x=" + "y" * 4096, Record(defect="DMARC record too long")),
        ("v=spf1 " + "y" * 4096, None),
        ("", None),
    ],
)
def test_what_is_read_of_a_record(text: str, record: Record | None) -> None:
    """RFC 9989 section 4.7: the tags and their defaults."""
    assert parse(text) == record


# --- facts ---


def test_what_aligned_and_whose_record_it_was() -> None:
    """The methods that authenticated for the author, each once, and where the record stands."""
    world = World({"a": ["v=DMARC1; p=none; sp=quarantine; aspf=s"]})
    known = identifiers("x.b.a", Spf.PASS, ())
    known = (*known, Identifier("dkim", "c.a"), Identifier("dkim", "b.a"), Identifier("dkim", "z"))
    found, until = world.check(of("b.a"), known)
    assert found == Checked(Result.PASS, "b.a", Policy.QUARANTINE, "a", ("dkim",))
    assert until == 1000.0


def test_an_unreadable_author_needs_no_dns() -> None:
    """RFC 9989 section 4.4: nothing is asked for, and it is so for ever."""
    world = World({"a": ["v=DMARC1; p=reject"]})
    assert world.check(Author(defect="no From field"), [spf("a")]) == (
        Checked(Result.PERMERROR, reason="no From field"),
        FOR_EVER,
    )
    assert world.check(Author(), ()) == (Checked(Result.NONE), FOR_EVER)
    assert world.rounds == 0


def test_a_signature_of_anybody_may_be_the_authors() -> None:
    """Signatures that our own fault kept from being read leave all open, and spoil no pass."""
    world = World({"a": ["v=DMARC1; p=reject"]})
    lost = Identifier("dkim", "", sure=False)
    assert world.check(of("a"), [lost])[0].result is Result.TEMPERROR
    assert world.check(of("a"), [lost, spf("a")])[0].result is Result.PASS
