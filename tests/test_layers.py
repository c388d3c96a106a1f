"""The house rules as a test: pure files stay pure, services never import each other, one file earns the 250.

Every file of libs/ and services/ is pure unless it is listed in SHELL with the reason why it must touch the
world. The scans read the syntax tree, so a comment or a string cannot trip them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("libs", "services")
SERVICES = ("ingest", "verify", "deliver", "control")

SHELL = {
    "libs/log/deadlines.py": "sets timers",
    "libs/log/kafka.py": "speaks to Kafka",
    "libs/log/kafka_client.py": "speaks to Kafka",
    "libs/log/kafka_fetch.py": "speaks to Kafka",
    "libs/log/kafka_group.py": "is a member of groups",
    "libs/log/kafka_line.py": "an aiokafka producer",
    "libs/log/kafka_request.py": "speaks to Kafka",
    "libs/log/kafka_produce.py": "appends to Kafka",
    "libs/log/kafka_read.py": "reads from Kafka",
    "libs/log/kafka_record.py": "reads from Kafka",
    "libs/log/kafka_topics.py": "creates and checks topics",
    "libs/log/kafka_wire.py": "speaks to Kafka",
    "libs/log/sqlite.py": "owns the database file",
    "libs/log/sqlite_chores.py": "deletes in the database file",
    "libs/log/sqlite_file.py": "opens the database file",
    "libs/log/sqlite_follow.py": "reads the database file, wakes followers",
    "libs/log/sqlite_writer.py": "writes the database file in its thread",
    "libs/log/open.py": "opens the log",
    "libs/log/table.py": "follows a topic",
    "libs/runtime/certs.py": "reads the files of the certificate",
    "libs/runtime/clock.py": "is the clock",
    "libs/runtime/deps.py": "names what the shell is given",
    "libs/runtime/config.py": "names files, opens none",
    "libs/runtime/config_file.py": "reads the configuration file and the environment",
    "libs/log/standing.py": "asks the log until it answers",
    "libs/runtime/events.py": "writes log lines and appends events",
    "libs/runtime/heap.py": "sets up the C library",
    "libs/runtime/health.py": "serves pages",
    "libs/runtime/http.py": "listens and serves",
    "libs/runtime/logs.py": "writes the log lines of the process",
    "libs/runtime/metrics.py": "holds the metrics of the process",
    "libs/runtime/processes.py": "starts and watches processes",
    "libs/runtime/run.py": "runs the services and takes signals",
    "libs/runtime/selfcheck.py": "asks DNS, binds addresses, reads the certificate",
    "libs/runtime/measured.py": "appends to and follows the log",
    "libs/runtime/tally.py": "holds counts",
    "libs/runtime/watch.py": "looks at the log, the loop and the host",
    "libs/runtime/dns.py": "asks DNS",
    "libs/runtime/terminal.py": "speaks to people",
    "libs/smtp/client.py": "dials",
    "libs/smtp/demands.py": "asks DNS, has policies fetched",
    "libs/smtp/lookup.py": "asks DNS",
    "libs/smtp/session.py": "speaks to mail servers",
    "libs/smtp/sts_file.py": "reads and writes a file of policies",
    "libs/smtp/sts.py": "fetches over HTTPS, asks DNS",
    "libs/smtp/tls.py": "is TLS",
    "libs/smtp/wire.py": "speaks to mail servers",
    "services/main.py": "is the command",
    "services/process.py": "builds processes and runs them",
    "services/control/api.py": "serves pages",
    "services/control/borrowed.py": "opens the log",
    "services/control/caller.py": "speaks to the running service",
    "services/control/cli.py": "speaks to people",
    "services/control/cli_queue.py": "speaks to people",
    "services/control/cli_vault.py": "speaks to people",
    "services/control/cli_apply.py": "reads files, speaks to people",
    "services/control/cli_doctor.py": "speaks to people",
    "services/control/checkups.py": "tells time, draws chance, counts",
    "services/control/rounds.py": "has domains examined, tells time",
    "services/control/cli_announce.py": "speaks to people",
    "services/control/cli_selfcheck.py": "speaks to people",
    "services/control/cli_recipients.py": "speaks to people",
    "services/control/consulting.py": "has the doctor look",
    "services/control/declaring.py": "writes domains",
    "services/control/hooks.py": "has notices posted, tells time",
    "services/control/notices.py": "writes requests, tells time",
    "services/control/poster.py": "posts over HTTPS, asks DNS",
    "services/control/told.py": "follows and writes requests",
    "services/control/doing.py": "speaks to people",
    "services/control/places.py": "keeps a table of SQLite in memory",
    "services/control/removing.py": "writes domains, asks deliver",
    "services/control/cli_remove.py": "speaks to people",
    "services/control/cli_top.py": "speaks to people, hears keys",
    "services/control/cli_timeline.py": "speaks to people",
    "services/control/desk.py": "follows tables, reads the log, writes requests",
    "services/control/register.py": "writes domains, asks DNS",
    "services/control/doctor.py": "asks DNS and mail servers",
    "services/control/roll.py": "reads recipients, appends to callouts",
    "services/control/service.py": "runs the service",
    "services/control/setup.py": "creates topics",
    "services/control/terminal.py": "speaks to people",
    "services/control/trace.py": "follows and reads events",
    "services/verify/background.py": "tells time",
    "services/verify/primaries.py": "tells time, has it written",
    "services/verify/releases.py": "follows requests",
    "services/verify/upkeep.py": "tells time, has it asked and written",
    "services/verify/callouts.py": "follows and writes topics, tells time",
    "services/verify/calls.py": "speaks to primaries",
    "services/verify/reaching.py": "dials primaries",
    "services/verify/known.py": "follows tables",
    "services/verify/identities.py": "asks DNS",
    "services/verify/authenticate.py": "awaits DNS and the pool",
    "services/verify/checking.py": "asks DNS, tells time",
    "services/verify/cli_auth.py": "speaks to people",
    "services/verify/content.py": "follows content, appends verdicts",
    "services/verify/heavy.py": "runs processes",
    "services/verify/reading.py": "reads and commits positions",
    "services/verify/service.py": "runs the service",
    "services/verify/spill.py": "owns the spill file",
    "services/verify/storing.py": "appends answers",
    "services/ingest/ask.py": "publishes questions and waits for answers",
    "services/ingest/commit.py": "appends to the queue",
    "services/ingest/connection.py": "reads and writes a socket",
    "services/ingest/content.py": "appends content while it arrives",
    "services/ingest/etrn.py": "appends requests, asks DNS",
    "services/ingest/known.py": "follows tables",
    "services/ingest/origin.py": "asks DNS",
    "services/ingest/senders.py": "asks DNS",
    "services/ingest/server.py": "listens and speaks",
    "services/ingest/service.py": "runs the service",
    "services/ingest/sights.py": "follows and appends to a topic",
    "services/ingest/verdicts.py": "follows a topic",
    "services/deliver/addresses.py": "waits for room at a dialled address",
    "services/deliver/attempt.py": "dials the next hop, reads the log",
    "services/deliver/carrier.py": "runs connections and probes",
    "services/deliver/hop.py": "holds the tasks of a next hop",
    "services/deliver/late.py": "writes to the log, tells time",
    "services/deliver/notices.py": "writes to the log",
    "services/deliver/observations.py": "appends to the log",
    "services/deliver/moving.py": "writes content again",
    "services/deliver/partition.py": "writes to the log",
    "services/deliver/requests.py": "writes to the log",
    "services/deliver/service.py": "runs the service",
    "services/deliver/settlement.py": "writes to the log",
    "services/deliver/shard.py": "follows the log",
    "services/deliver/upkeep.py": "reads the clock, truncates the log",
}

# What a pure file may not import, whole or in part: I/O, clocks, randomness, concurrency.
IMPURE = frozenset(
    """aiokafka aiosmtpd aiosmtplib asyncio concurrent ctypes dns fcntl httpx io logging multiprocessing os
    pathlib prometheus_client random secrets select signal socket sqlite3 ssl starlette structlog subprocess
    sys tempfile threading time typer uuid uvicorn uvloop""".split()
)
HARMLESS = {"io.IncrementalNewlineDecoder"}  # knows line ends; there is no stream behind it
CLOCKS = {"now", "utcnow", "today"}  # datetime's ways to read a clock
OPENERS = {"open", "print", "input", "exec", "eval"}


def sources() -> Iterator[str]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.stat().st_size:
                yield path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, dotted, including those under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names} - HARMLESS
            if names:
                yield node.module
            yield from names


def declares(node: ast.AsyncFunctionDef) -> bool:
    """A method of a Protocol: a docstring and `...`, nothing that runs."""
    return all(isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) for each in node.body)


def impurities(source: str) -> list[str]:
    """What makes this source impure, each with its line."""
    tree = ast.parse(source)
    found = [f"imports {name}" for name in imports(tree) if name.split(".")[0] in IMPURE]
    shell = {name.removesuffix(".py").replace("/", ".") for name in SHELL} - {
        "libs.runtime.clock", "libs.runtime.config", "libs.log.table"
    }  # fmt: skip
    found += [f"imports the shell file {name}" for name in imports(tree) if name in shell]
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            if isinstance(node, ast.AsyncFunctionDef) and declares(node):
                continue
            found.append(f"line {node.lineno}: is asynchronous")
        elif isinstance(node, ast.Global | ast.Nonlocal):
            found.append(f"line {node.lineno}: global or nonlocal state")
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in CLOCKS or (name in OPENERS and isinstance(node.func, ast.Name)):
                found.append(f"line {node.lineno}: calls {name}()")
    return found


def crossings(name: str, source: str) -> list[str]:
    """Imports of another service by file `name` of a service or of libs."""
    parts = Path(name).parts
    own = parts[1] if parts[0] == "services" and len(parts) > 2 else ""
    if parts in (("services", "main.py"), ("services", "process.py")):
        return []
    return [
        module
        for module in imports(ast.parse(source))
        if module.startswith("services.") and module.split(".")[1] != own
    ]


def test_the_shell_list_is_true() -> None:
    """Every shell file exists, has a reason, and really is impure: otherwise it belongs to the pure ones."""
    for name, reason in SHELL.items():
        assert (ROOT / name).exists(), name
        assert reason, name
        assert impurities((ROOT / name).read_text()), f"{name} is pure: take it off the list"


@pytest.mark.parametrize("name", [name for name in sources() if name not in SHELL])
def test_pure_files_are_pure(name: str) -> None:
    """A file that is not listed as shell does no I/O, reads no clock, draws no randomness, has no async."""
    assert not impurities((ROOT / name).read_text())


@pytest.mark.parametrize("name", list(sources()))
def test_services_never_import_each_other(name: str) -> None:
    """Services talk through topics only; libs know no service; main.py and process.py alone see them all."""
    assert not crossings(name, (ROOT / name).read_text())


def test_the_checks_can_fail() -> None:
    """A pure file that reads a clock and a service that imports another are found."""
    assert impurities("import time\n\ndef f():\n    return time.time()\n")
    assert impurities("from datetime import datetime\n\ndef f():\n    return datetime.now()\n")
    assert impurities("async def f():\n    return 1\n")
    assert impurities("def f():\n    return open('x')\n")
    assert crossings("services/ingest/policy.py", "from services.verify import finding\n")
    assert crossings("libs/mail/reply.py", "import services.ingest.commit\n")
    assert not crossings("services/ingest/server.py", "from services.ingest import session\n")


def calls(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Call):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def test_one_file_earns_the_250() -> None:
    """Only commit.py constructs a Receipt; only replies.queued makes the final 250 out of one."""
    makers = [name for name in sources() if "Receipt" in calls(name)]
    assert makers == ["services/ingest/commit.py"]


def test_nobody_uses_wait_for() -> None:
    """asyncio.wait_for of Python 3.11 swallows a cancellation that meets a result: a task that should end
    goes on. asyncio.timeout does not."""
    assert [name for name in sources() if "wait_for" in calls(name)] == []


def test_only_libs_smtp_dials() -> None:
    """No other file opens a connection to a mail server."""
    dialling = {"open_connection", "create_connection", "SMTP"}
    found = [name for name in sources() if not name.startswith("libs/smtp/") and dialling & set(calls(name))]
    assert found == []


def test_rules_md_has_every_rule_that_is_named() -> None:
    """A rule is named by its number, and each number that is named stands in docs/rules.md."""
    there = set(re.findall(r"^([0-9]+)\. ", (ROOT / "docs/rules.md").read_text(), re.MULTILINE))
    named: set[str] = set()
    for name in sources():
        named |= set(re.findall(r"\b[Rr]ule ([0-9]+)\b", (ROOT / name).read_text()))
    assert named
    assert named <= there


def test_path_md_marks_the_shell() -> None:
    """A file stands with a * in docs/path.md if, and only if, it is shell."""
    rows = re.findall(r"^\| `(\S+\.py)`( \*)? \|", (ROOT / "docs/path.md").read_text(), re.MULTILINE)
    assert rows
    assert {name for name, star in rows if star} == set(SHELL)


def test_path_md_names_every_file() -> None:
    """docs/path.md walks the code in order: every file it names exists, and it leaves none out."""
    text = (ROOT / "docs/path.md").read_text()
    named = {word.strip("`*,:()") for word in text.split() if word.strip("`*,:()").endswith(".py")}
    missing = {name for name in named if "/" in name and not (ROOT / name).exists()}
    assert not missing
    silent = {name for name in sources() if name not in named}
    assert not silent
