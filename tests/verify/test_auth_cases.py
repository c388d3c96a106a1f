"""The case files of authentication: message, DNS and session in, results out; each README is one of them."""

import re
import shlex
from typing import NamedTuple

import pytest

from libs.mail.headers import Finding, authentication_results
from libs.mail.records import Action, Enforce, Trace, Verdict
from libs.runtime.dns import Dns
from services.verify.authenticate import Authenticator
from services.verify.content import Assembled
from services.verify.heavy import Pool
from services.verify.spill import Spill
from tests.helpers.clock import Clock
from tests.helpers.zone import Zone
from tests.verify import sign

CASES = sign.CASES
PROPERTIES = ("header.d", "header.s", "header.a", "header.from", "policy.dmarc")
HOSTS = ("mx1.backup.example", "mx2.backup.example")
ABOVE = ("client", "relay", "helo", "from", "now", "enforce", "trusted", *sign.RECIPE)
BELOW = (
    "received-spf",
    "spf",
    "helo",
    "dkim",
    "dmarc",
    "arc",
    "asked",
    "refused",
    "may_notify",
    "strip",
    "fields",
)


class Case(NamedTuple):
    name: str
    result: str
    dns: str
    message: bytes


def stored() -> list[Case]:
    """A case without a .msg is about the session only; its message is that of sign.py, not signed."""
    return [
        Case(
            f"{folder}/{path.stem}",
            path.read_text(),
            path.with_suffix(".dns").read_text(),
            message.read_bytes() if (message := path.with_suffix(".msg")).exists() else sign.MESSAGE,
        )
        for folder in sign.FOLDERS
        for path in sorted((CASES / folder).glob("*.result"))
    ]


def readmes() -> list[Case]:
    return [_readme(folder, (CASES / folder / "README.md").read_text()) for folder in sign.FOLDERS]


def _readme(folder: str, text: str) -> Case:
    blocks = dict(re.findall(r"```(result|dns|msg)\n(.*?)```", text, re.DOTALL))
    signed = message = sign.made(sign.recipe(blocks["result"]))
    if "msg" in blocks:
        signature = signed[: signed.index(b"\r\nFrom:") + 2]
        message = blocks["msg"].encode().replace(b"\n", b"\r\n")
        message = message.replace(b"DKIM-Signature: SIGNATURE\r\n", signature)
    return Case(f"{folder}/README", blocks["result"], blocks["dns"], message)


def lines(case: Case) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The (keyword, rest) pairs above and below the `---`. An unknown keyword fails with file and line."""
    parts: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    below = False
    for number, line in enumerate(case.result.splitlines(), 1):
        if line == "---":
            below = True
        elif line and not line.startswith("#"):
            keyword, _, rest = line.partition(" ")
            known = BELOW if below else ABOVE
            assert keyword in known, f"{case.name}.result:{number}: {keyword}: known are {', '.join(known)}"
            parts[below].append((keyword, rest))
    return parts


def found(verdict: Verdict) -> dict[str, list[str]]:
    """The field of the verdict taken apart: method or `helo` -> the words of each of its results. Of the
    methods the order is that of the field (dmarc and arc come last)."""
    text = verdict.fields.decode().replace("\r\n", "")
    name, _, rest = text.partition(";")
    assert name == f"Authentication-Results: {HOSTS[0]}"
    results: dict[str, list[str]] = {"dkim": []}
    for part in re.findall(r'(?:[^;"]|"(?:[^"\\]|\\.)*")+', rest):
        words = dict(word.split("=", 1) for word in shlex.split(part))
        method = next(method for method in ("spf", "dkim", "dmarc", "arc") if method in words)
        facts = [words[method]]
        facts += [words[key] for key in PROPERTIES if key in words]
        facts += [f'"{words["reason"]}"'] if "reason" in words else []
        results.setdefault("helo" if "smtp.helo" in words else method, []).append(" ".join(facts))
    assert list(results)[-2:] == ["dmarc", "arc"]
    return results


@pytest.mark.parametrize("case", [*stored(), *readmes()], ids=lambda case: case.name)
async def test_case(case: Case) -> None:
    """Each case file's own rule (its first line), the slow way and then, from what is known, at once."""
    assert case.result.startswith("# "), f"{case.name}.result begins with its rule"
    above, below = lines(case)
    given = dict(above)
    reverse_path = "" if given["from"] == "<>" else given["from"]
    client, helo = ("" if given[name] == "-" else given[name] for name in ("client", "helo"))
    trace = Trace(1, "office.example", client, helo, reverse_path, relay=given.get("relay", ""))
    clock = Clock(float(given.get("now", 1_800_000_000)))
    async with Zone(sign.zone_text(case.dns)) as zone:
        dns = Dns(zone.servers, clock, 1.0 if "!timeout" in case.dns else 20.0)
        pool = Pool()
        authenticator = Authenticator(
            dns,
            clock,
            pool,
            authserv_id=HOSTS[0],
            hosts=HOSTS,
            within_s=30,
            enforced={"office.example": Enforce(given.get("enforce", "off"))}.__getitem__,
            trusted=given.get("trusted", "").split(),
            received_spf="received-spf" in dict(below),
        )

        verdict = await authenticator.verdict("id1", trace, Assembled((case.message,), Spill(None)))
        at_once = authenticator.now("id1", trace, case.message)
        await dns.close()
        await pool.close()
    assert verdict.id == "id1"
    compare(case, verdict, below)
    for keyword, rest in below:
        if keyword == "asked":
            asked = {name for name, _ in zone.questions if name.startswith("_dmarc.")}
            assert asked == {f"_dmarc.{domain}" for domain in rest.split()}
    assert at_once == verdict
    assert "exp" not in {name.partition(".")[0] for name, _ in zone.questions}


def compare(case: Case, verdict: Verdict, below: list[tuple[str, str]]) -> None:
    results = found(verdict)
    wanted = [rest for keyword, rest in below if keyword == "dkim"]
    if wanted:
        assert results["dkim"] == wanted
    cut = [case.message[start:end] for start, end in verdict.strip]
    assert [shown(text) for text in cut] == [rest for keyword, rest in below if keyword == "strip"]
    for keyword, rest in below:
        if keyword in ("spf", "helo", "dmarc", "arc"):
            assert results.get(keyword, ["none"]) == [rest], keyword
        elif keyword == "may_notify":
            assert verdict.may_notify is (rest == "yes")
        elif keyword == "fields":
            assert shown(verdict.fields) == rest
        elif keyword == "received-spf":
            assert verdict.above.decode().replace("\r\n\t", " ") == f"Received-SPF: {rest}\r\n"
    refused = [rest for keyword, rest in below if keyword == "refused"]
    assert (verdict.action is Action.REJECT, verdict.reply) == (bool(refused), "".join(refused))


def shown(text: bytes) -> str:
    return text.decode().replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")


@pytest.mark.parametrize("case", stored(), ids=lambda case: case.name)
def test_messages_are_those_of_their_recipes(case: Case) -> None:
    """A stored message is what dkimpy's signer makes of its recipe: nobody edited it by hand."""
    if recipe := sign.recipe(case.result):
        assert case.message == sign.made(recipe)


def test_there_are_cases() -> None:
    """Every folder was found, and nothing is there that no case reads."""
    cases = {case.name for case in stored()}
    for folder, least in (("auth", 4), ("spf", 200), ("dkim", 190), ("dmarc", 80), ("arc", 60)):
        names = {path.name for path in (CASES / folder).iterdir() if path.is_file()}
        own = {case.partition("/")[2] for case in cases if case.startswith(f"{folder}/")}
        ends = ("dns", "result") if folder == "spf" else ("dns", "result", "msg")
        assert len(own) >= least
        assert names == {f"{case}.{end}" for case in own for end in ends} | {"README.md"}


def test_an_unknown_keyword_is_named() -> None:
    """A misspelt line in a case fails with file, line and the list of keywords."""
    with pytest.raises(AssertionError, match=r"x\.result:2: clint: known are client"):
        lines(Case("x", "# rule\nclint 1\n---\n", "", b""))


def test_found_reads_what_is_written() -> None:
    """The reader of this test sees each result with its properties."""
    author = (("header.from", "a.example"), ("policy.dmarc", "reject"))
    fields = authentication_results(
        HOSTS[0],
        [
            Finding("spf", "pass", (("smtp.mailfrom", "a.example"),)),
            Finding("spf", "fail", (("smtp.helo", "[192.0.2.1]"),)),
            Finding("dkim", "fail", (("header.d", "a;b"),), 'it "failed"; really'),
            Finding("dmarc", "fail", author),
            Finding("arc", "fail", (), "seal 1: it; failed"),
        ],
    )
    assert found(Verdict("id1", Action.ACCEPT, fields, False)) == {
        "spf": ["pass"],
        "helo": ["fail"],
        "dkim": ['fail a;b "it "failed"; really"'],
        "dmarc": ["fail a.example reject"],
        "arc": ['fail "seal 1: it; failed"'],
    }
