"""Case files: the DNS of a domain and a scripted server; what the doctor finds there.

The format is explained by cases/doctor/README.case, which runs as a case too.
"""

import itertools
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme

from libs.mail.hints import Us
from libs.mail.knowledge import Callouts, Health, PrimaryFacts, PrimaryState
from libs.mail.records import Language
from libs.mail.speaks import Stage
from libs.runtime.clock import SystemClock
from libs.runtime.config import Config
from libs.runtime.dns import Dns
from libs.smtp.route import said
from services.control.diagnoses import WORDS, diagnosis, report
from services.control.doctor import Doctor
from services.control.examined import Dns as Mx
from services.control.examined import Examined, Known, Policy, Visit
from services.control.findings import KINDS, SLOW_S, Finding, Kind, Light, findings
from services.control.owner_report import WIDTH, owner_report
from tests.helpers.policy_server import PolicyServer
from tests.helpers.primary import CAPABILITIES, Primary, server_context
from tests.helpers.zone import Zone

CASES = sorted((Path(__file__).parent / "cases" / "doctor").glob("*.case"))
DOMAIN, ANN = "office.example", "ann@office.example"
HOSTS = ("mx1.backup.example", "mx2.backup.example")
GOOD = f"""
{DOMAIN}              MX 10 mail.{DOMAIN}
                      MX 20 mx1.backup.example
                      MX 20 mx2.backup.example
mail.{DOMAIN}         A 127.0.0.2
mx1.backup.example    A 192.0.2.1
mx2.backup.example    A 192.0.2.2
spf-test.mx1.backup.example TXT "v=spf1 -all"
"""
WORDS_KNOWN = (
    "dns good-dns say once tls capabilities down unregistered pending nobody health braked facts "
    "primary-host max-size"
).split()


class Case:
    """What a file says. `zone`: lines of DNS; `wanted`: lines of what is found."""

    def __init__(self, path: Path) -> None:
        self.zone: list[str] = []
        self.said: list[tuple[str, str, int | None]] = []
        self.tls = self.down = self.braked = False
        self.capabilities: tuple[str, ...] = CAPABILITIES
        self.known = Known(registered=True, active=True, max_size=52_428_800, deliverable=1)
        self.place = ""
        self.someone = ANN
        head, _, wanted = path.read_text("utf-8").partition("---\n")
        self.wanted = sorted(wanted.splitlines())
        for number, line in enumerate(head.splitlines(), 1):
            if line and not line.startswith("#"):
                self._line(f"{path}:{number}", *line.partition(" ")[::2])

    def _line(self, at: str, word: str, rest: str) -> None:
        known = self.known
        match word:
            case "dns":
                self.zone.append(rest)
            case "good-dns":
                self.zone.append(GOOD)
            case "say" | "once":
                stage, _, reply = rest.partition(" ")
                self.said.append((stage, reply, 1 if word == "once" else None))
            case "tls":
                self.tls = True
            case "capabilities":
                self.capabilities = tuple(rest.split(", "))
            case "down":
                self.down = True
            case "unregistered":
                self.known, self.someone = Known(max_size=known.max_size), ""
            case "pending":
                self.known = _with(known, active=False)
            case "nobody":
                self.known, self.someone = _with(known, deliverable=0), ""
            case "health":
                health, _, reply = rest.partition(" ")
                state = PrimaryState(DOMAIN, Health(health), 1.0, last_reply=reply)
                self.known = _with(known, primary=state)
            case "braked":
                self.known = _with(known, primary=PrimaryState(DOMAIN, Health.UP, 1.0, braked=True))
            case "facts":
                callouts, *more = rest.split()
                facts = PrimaryFacts(DOMAIN, Callouts(callouts), 1.0, braked="braked" in more)
                self.known = _with(known, facts=facts)
            case "primary-host":
                self.place = rest
            case "max-size":
                self.known = _with(known, max_size=int(rest))
            case _:
                raise ValueError(f"{at}: {word!r}: known are {', '.join(WORDS_KNOWN)}")


def _with(known: Known, **fields: Any) -> Known:
    return Known(**{name: fields.get(name, getattr(known, name)) for name in known.__struct_fields__})


def configured(folder: Path, **dial: object) -> Config:
    """`dial`: how servers are dialled; those are trusted whom authorities.pem in `folder` names."""
    return Config.model_validate(
        {
            "state_directory": folder,
            "installation": {"id": "installation", "hosts": HOSTS, "operators": "ops@isp.example"},
            "host": {"name": HOSTS[0]},
            "dial": {"authorities": folder / "authorities.pem", **dial},
        }
    )


async def examined(case: Case, folder: Path) -> tuple[Examined, Mapping[str, Any]]:
    """What was seen, and the report of it in English."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authorities.pem")
    context = server_context("elsewhere.example") if case.tls else None
    async with (
        Zone("\n".join(case.zone)) as zone,
        Primary(
            address="127.0.0.2",
            known={ANN, f"postmaster@{DOMAIN}"},
            capabilities=case.capabilities,
            tls=context,
        ) as primary,
    ):
        for stage, reply, times in case.said:
            stage, _, to = stage.partition("/")
            primary.say(stage, reply.replace("\\r\\n", "\r\n"), to=to or None, times=times)
        if case.down:
            await primary.down()
        config = configured(folder, port=primary.port, allow=["127.0.0.0/8"])
        clock = SystemClock()
        dns = Dns(zone.servers, clock, 2.0)
        doctor = Doctor(config, dns, clock)
        try:
            seen = await doctor.examine(DOMAIN, case.known, said(case.place, ""), case.someone)
        finally:
            await dns.close()
        assert not primary.received
        assert not primary.violations
    return seen, report(seen, config.us, Language.EN)


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
async def test_case(path: Path, tmp_path: Path) -> None:
    case = Case(path)
    _, told = await examined(case, tmp_path)
    found = sorted(f"{each['level']} {each['kind']} {each['at']}".rstrip() for each in told["findings"])
    assert found == case.wanted
    assert told["wrong"] == any(line.startswith("wrong ") for line in case.wanted)
    for each in told["findings"]:
        assert "{" not in each["what"] + each["why"] + each["remedy"], each


VISITS = {
    Kind.SILENT: Visit("mail.office.example", "192.0.2.25", Stage.CONNECT, reason="timeout"),
    Kind.UNREACHABLE: Visit("mail.office.example", "192.0.2.25", Stage.CONNECT, reason="unreachable"),
    Kind.NO_SOURCE: Visit("mail.office.example", "192.0.2.25", Stage.CONNECT, reason="source"),
    Kind.SLOW: Visit("mail.office.example", "192.0.2.25", took_s=SLOW_S + 1),
}


@pytest.mark.parametrize("kind", VISITS)
@pytest.mark.parametrize("language", Language)
def test_what_takes_long_to_see(kind: Kind, language: Language) -> None:
    """From the visit alone."""
    seen = Examined(DOMAIN, HOSTS, Mx.OK, visits=(VISITS[kind],))
    told = report(seen, Us(("192.0.2.1",), HOSTS[0]), language)
    [found] = [each for each in told["findings"] if each["kind"] == kind]
    assert found["at"] == "192.0.2.25"


async def test_a_policy_without_us(tmp_path: Path) -> None:
    """RFC 8461: who honours it hands no mail to a host that it lacks; one that is tested binds nobody."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
    authority.issue_cert(f"mta-sts.{DOMAIN}").configure_cert(context)
    records = f'{GOOD}_mta-sts.{DOMAIN} TXT "v=STSv1; id=1;"\nmta-sts.{DOMAIN} A 127.0.0.1\n'
    policy = f"version: STSv1\nmode: enforce\nmx: mail.{DOMAIN}\nmax_age: 86400\n"
    async with Zone(records) as zone, PolicyServer(context, policy) as server:
        dial = {"port": 1, "policy_port": server.port, "allow": ["127.0.0.0/8"]}
        config = configured(tmp_path, **dial)
        clock = SystemClock()
        dns = Dns(zone.servers, clock, 2.0)
        seen = await Doctor(config, dns, clock).examine(DOMAIN, Known(), None)
        await dns.close()
    found = findings(seen)
    assert [each.at for each in found if each.kind is Kind.STS_WITHOUT_US] == list(HOSTS)
    testing = Policy(enforced=False, missing=HOSTS)
    found = findings(Examined(DOMAIN, HOSTS, Mx.OK, policy=testing))
    assert not [each for each in found if each.kind is Kind.STS_WITHOUT_US]


@pytest.mark.parametrize("language", Language)
def test_a_report_for_the_owner(language: Language) -> None:
    """Every kind in his words: no command of ours, no gap, lines that a mail can have; each light and each
    finding is there, the worst first."""
    us = Us(("192.0.2.1",), HOSTS[0])
    seen = Examined(DOMAIN, HOSTS, Mx.OK)
    rows = [
        {"kind": kind.value, "level": KINDS[kind][1].value, "detail": "7", "at": "192.0.2.25"}
        | diagnosis(Finding(kind, "192.0.2.25", "7"), seen, us, language)._asdict()
        for kind in Kind
    ]
    text = owner_report(report(seen, us, language) | {"findings": rows}, language)
    assert "backupmx domain" not in text
    assert not re.search(r"\{(?!Add=)\w", text)
    assert all(len(line) <= WIDTH or "`" in line for line in text.splitlines())
    assert all(line.count("`") % 2 == 0 for line in text.splitlines())  # what is pasted is not cut
    assert len(re.findall(r"^\d+\. ", text, re.MULTILINE)) == len(Kind)
    levels = re.findall(r"^\d+\. (\S+?)[: ]", text, re.MULTILINE)
    assert len(list(itertools.groupby(levels))) == 3
    assert len(re.findall(r"^  [+!X] ", text, re.MULTILINE)) == len(Light)


def test_a_report_where_all_is_well() -> None:
    lights = [{"level": "good", "says": "DNS is right"}]
    text = owner_report({"domain": DOMAIN, "lights": lights, "findings": []}, Language.EN)
    assert text.endswith("\n\n  + DNS is right\n\nThere is nothing to do.\n")


def test_every_kind_has_a_case() -> None:
    """And its words in each language."""
    seen = {line.split()[1] for path in CASES for line in Case(path).wanted}
    seen |= {Kind.STS_WITHOUT_US.value, *VISITS}
    assert seen == {kind.value for kind in Kind}
    for words in WORDS.values():
        assert set(words) == set(Kind) == set(KINDS)


def test_a_case_that_is_none(tmp_path: Path) -> None:
    """An unknown word is named, with the place and those that are known."""
    path = tmp_path / "bad.case"
    path.write_text("dns x A 1.2.3.4\nhokum\n---\n")
    with pytest.raises(ValueError, match=r"bad.case:2: 'hokum': known are dns, good-dns"):
        Case(path)


async def test_lights(tmp_path: Path) -> None:
    """A server that is not reached: nobody knows what it says. All well: five good ones."""
    path = tmp_path / "a.case"
    for text, wanted in (
        ("good-dns\ndown\n", {"mx": "good", "reachable": "wrong", "callouts": "warning", "spf": "warning",
                              "recipients": "good"}),
        ("good-dns\n", dict.fromkeys(("mx", "callouts", "spf", "recipients"), "good")
         | {"reachable": "warning"}),  # it has no TLS
    ):  # fmt: skip
        path.write_text(text + "---\n")
        _, told = await examined(Case(path), tmp_path)
        assert {each["light"]: each["level"] for each in told["lights"]} == wanted
    assert {each["light"] for each in told["lights"]} == {light.value for light in Light}


async def test_one_fix_of_each_light(tmp_path: Path) -> None:
    """The remedy of the worst that is wrong with it; of what nobody can see, that; none where it is good."""
    path = tmp_path / "a.case"
    path.write_text("good-dns\nnobody\ndown\n---\n")
    _, told = await examined(Case(path), tmp_path)
    fixes = {each["light"]: each["fix"] for each in told["lights"]}
    remedies = {each["light"]: each["remedy"] for each in told["findings"]}
    unseen = "Nobody knows until your server is reached."
    assert fixes == {"mx": "", "callouts": unseen, "spf": unseen} | remedies
    assert set(remedies) == {"reachable", "recipients"}
