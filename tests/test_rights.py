"""The rights on Kafka are what the code needs: each topic that a service names in its source, no other."""

import ast
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from libs import rights, topics
from libs.runtime.sample import sample
from services.main import app

ROOT = Path(__file__).parent.parent
READS = {"follow", "_follow", "table", "read", "standing"}
WRITES = {"append", "_append", "_insist"}
EVERYBODY_READS = {"domains"}  # libs/log/open.py: the installation record
EVERYBODY_WRITES = {"events"}  # libs/runtime/events.py


def _named(argument: ast.expr) -> str | None:
    """The topic that an argument is: a literal, or `QUEUE.name`."""
    if isinstance(argument, ast.Constant) and argument.value in topics.TOPICS:
        return str(argument.value)
    if (
        isinstance(argument, ast.Attribute)
        and argument.attr == "name"
        and isinstance(argument.value, ast.Name)
    ):
        topic = getattr(topics, argument.value.id, None)
        return topic.name if isinstance(topic, topics.Topic) else None
    return None


def _touched(service: str, calls: set[str]) -> set[str]:
    found = set()
    for path in (ROOT / "services" / service).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if called in calls:
                    found |= {topic for argument in node.args if (topic := _named(argument))}
    return found


@pytest.mark.parametrize("service", rights.SERVICES)
def test_reads(service: str) -> None:
    may = {name for name, readers in rights.READERS.items() if service in readers}
    assert may == _touched(service, READS) | EVERYBODY_READS


@pytest.mark.parametrize("service", rights.SERVICES)
def test_writes(service: str) -> None:
    may = {name for name, topic in topics.TOPICS.items() if service in topic.writers}
    assert may == _touched(service, WRITES) | EVERYBODY_WRITES


@pytest.mark.parametrize("service", rights.SERVICES)
def test_truncates_and_groups(service: str) -> None:
    assert {t for t, of in rights.TRUNCATES.items() if of == service} == _touched(service, {"truncate"})
    source = "".join(path.read_text() for path in (ROOT / "services" / service).rglob("*.py"))
    assert (service in rights.GROUPS) == (f'log.own("{service}"' in source)


def test_ingest_may_not_write_recipients() -> None:
    of = {rule.name: rule.operations for rule in rights.rules("ingest", "mx.") if rule.resource == "topic"}
    assert of["mx.recipients"] == ("Read", "Describe", "DescribeConfigs")
    assert of["mx.queue"] == ("Write", "Describe", "DescribeConfigs")
    assert not [rule for rule in rights.rules("ingest") if rule.resource == "group"]


def test_only_deliver_deletes() -> None:
    deleting = {
        (s, rule.name) for s in rights.SERVICES for rule in rights.rules(s) if "Delete" in rule.operations
    }
    assert deleting == {("deliver", "content")}


def test_forms() -> None:
    rule = rights.Rule("topic", "queue", ("Write", "Describe"))
    assert (
        rights.command("ingest", rule)
        == "--add --allow-principal User:backupmx-ingest --operation Write --operation Describe --topic queue"
    )
    assert rights.strimzi(rule) == {
        "type": "allow",
        "resource": {"type": "topic", "name": "queue", "patternType": "literal"},
        "operations": ["Write", "Describe"],
        "host": "*",
    }
    assert rights.strimzi(rights.Rule("cluster", "kafka-cluster", ("Describe",)))["resource"] == {
        "type": "cluster"
    }


def test_the_command_prints_them(tmp_path: Path) -> None:
    config = tmp_path / "backupmx.toml"
    written = sample(id="an-installation", listen="127.0.0.1:2525", health="127.0.0.1:9100")
    config.write_text(written.replace('# prefix = ""', 'prefix = "mx."'))
    lines = _said("topics", "acls", "--config", str(config))
    assert len(lines) == sum(len(list(rights.rules(service))) for service in rights.SERVICES)
    assert any("User:backupmx-deliver" in line and line.endswith("--topic mx.content") for line in lines)
    users = [json.loads(line) for line in _said("topics", "acls", "--json", "--config", str(config))]
    assert [user["user"] for user in users] == [rights.principal(service) for service in rights.SERVICES]
    assert users[0]["acls"] == [rights.strimzi(rule) for rule in rights.rules("ingest", "mx.")]


def _said(*words: str) -> list[str]:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()
