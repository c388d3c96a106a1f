"""Notices that are posted: how they are signed, and to whom never, with a real HTTPS server."""

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from hmac import digest
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.mail.codec import decode_request
from libs.mail.event import Event, EventType
from libs.mail.knowledge import Health
from libs.mail.records import Language, Notify, Posted
from libs.runtime.config import Config
from libs.runtime.dns import Dns
from services.control import poster, webhook
from services.control.hooks import Hooks
from services.control.poster import Poster
from services.control.webhook import Post, again_s, url
from tests.control.test_desk import Office, config, office
from tests.control.test_notices import NAME, NOON, primary, tended
from tests.helpers.clock import Clock
from tests.helpers.hook_server import HookServer
from tests.helpers.zone import Zone
from tests.smtp.test_sts import context

HOOK = "hook.example"
ZONE = f"{HOOK} A 127.0.0.1\n"
SECRET = "whsec_" + b64encode(b"0123456789abcdef0123456789abcdef").decode()
BODY = Post(b'{"type":"notice.down"}', {"content-type": "application/json", "webhook-id": "1"})


def verified(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """As the specification of Standard Webhooks has it, for whoever gets it."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = digest(b64decode(secret.removeprefix("whsec_")), signed, sha256)
    version, _, signature = headers["webhook-signature"].partition(",")
    return version == "v1" and b64decode(signature) == expected


def test_a_post() -> None:
    """The schema is stable: these members; moments in UTC; the signature is over id, time and body."""
    details: dict[str, str | int | float] = {"since": NOON, "waiting": 3, "reply": "CONNECT: timeout"}
    request = Notify("r", NAME, "control", "down", "2027-01-15", "1800014400", f"https://{HOOK}/")
    request = replace(request, subject="Weg", text="Wög", since=NOON, details=details)
    post = webhook.post(request, "mx1.backup.example", Language.DE, SECRET, NOON + 61.5)
    said = json.loads(post.body)
    assert said == {
        "type": "notice.down",
        "timestamp": "2027-01-15T12:01:01Z",
        "data": {
            "id": post.headers["webhook-id"],
            "domain": NAME,
            "cause": "down",
            "since": "2027-01-15T12:00:00Z",
            "host": "mx1.backup.example",
            "language": "de",
            "subject": "Weg",
            "text": "Wög",
            "details": {"since": "2027-01-15T12:00:00Z", "waiting": 3, "reply": "CONNECT: timeout"},
        },
    }
    assert verified(post.headers, post.body, SECRET)
    assert not verified(post.headers, post.body + b" ", SECRET)
    assert not verified(post.headers, post.body, webhook.secret(bytes(32)))


def test_the_vector_of_the_specification() -> None:
    """The example in the reference implementations of Standard Webhooks."""
    body, secret = b'{"test": 2432232314}', "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verified(headers, body, secret)
    assert webhook.key(secret) == b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


@given(
    st.text(max_size=60)
    | st.text(alphabet="htps:/@.[]#a1-%\\?", max_size=40).map(lambda text: "https://" + text)
)
def test_urls(text: str) -> None:
    """Whatever is typed is refused as a ValueError, or names a host and nothing else that would be asked."""
    try:
        found = url(text)
    except ValueError:
        return
    host = found.removeprefix("https://").split("/")[0].split("?")[0].rsplit(":", 1)[0]
    assert "." in host
    assert not set(host) & set("@[]#\\ ")


def test_pauses() -> None:
    assert [again_s(tries) for tries in (1, 2, 3, 8, 100)] == [30, 60, 120, 3600, 3600]


class Scene(NamedTuple):
    poster: Poster
    hook: HookServer
    zone: Zone

    async def post(self, path: str = "/a?b=c") -> str:
        return await self.poster.post(f"https://{HOOK}:{self.hook.port}{path}", BODY)


@asynccontextmanager
async def scene(
    folder: Path, *names: str, ours: str = "127.0.0.9", allow: str = "127.0.0.0/8"
) -> AsyncIterator[Scene]:
    """`names`: in the certificate of the server; `ours`: our address; `allow`: that may be dialled."""
    authority, clock = trustme.CA(), Clock()
    authority.cert_pem.write_to_path(folder / "authorities.pem")
    async with Zone(ZONE) as zone, HookServer(context(authority, *names or (HOOK,))) as hook:
        dns = Dns(zone.servers, clock, 2.0)
        try:
            yield Scene(Poster(allowing(folder, allow, ours), dns), hook, zone)
        finally:
            await dns.close()


def allowing(folder: Path, allow: str, ours: str) -> Config:
    base = config(folder, "trusted").model_dump()
    base["dial"] |= {"allow": [allow], "authorities": folder / "authorities.pem"}
    base["host"] |= {"ipv4": [ours]}
    return Config.model_validate(base)


async def test_taken(tmp_path: Path) -> None:
    """By name, with what was signed; the answer may be long, and is not read."""
    async with scene(tmp_path) as at:
        assert await at.post() == ""
        (post,) = at.hook.posts
        assert (post.path, post.body) == ("/a", BODY.body)
        assert post.headers["host"] == f"{HOOK}:{at.hook.port}"
        assert post.headers["webhook-id"] == "1"


@pytest.mark.parametrize("status", [302, 307, 400, 500])
async def test_not_taken(tmp_path: Path, status: int) -> None:
    """Whatever is no 2xx; a redirect is not followed."""
    async with scene(tmp_path) as at:
        at.hook.status, at.hook.headers = status, {"location": f"https://{HOOK}:{at.hook.port}/other"}
        assert await at.post() == f"status {status}"
        assert [post.path for post in at.hook.posts] == ["/a"]


@pytest.mark.parametrize(
    ("names", "ours", "allow", "why"),
    [
        (("other.example",), "127.0.0.9", "127.0.0.0/8", "ConnectError"),  # somebody else's certificate
        ((HOOK,), "127.0.0.9", "198.18.0.0/15", "127.0.0.1, which is never dialled"),  # loopback
        ((HOOK,), "127.0.0.1", "127.0.0.0/8", "127.0.0.1, which is never dialled"),  # our own
    ],
)
async def test_never_posted(tmp_path: Path, names: tuple[str, ...], ours: str, allow: str, why: str) -> None:
    async with scene(tmp_path, *names, ours=ours, allow=allow) as at:
        assert why in await at.post()
        assert not at.hook.posts


async def test_silence_and_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poster, "WITHIN_S", 0.3)
    async with scene(tmp_path) as at:
        at.hook.answering.clear()
        assert "no answer" in await at.post() or "Timeout" in await at.post()
        at.hook.answering.set()
        at.zone.set("")
    async with scene(tmp_path) as at:
        at.zone.set("other.example A 127.0.0.1\n")
        assert await at.post() == f"{HOOK} has no address"


# --- posted by a control ---


async def outcomes(at: Office) -> list[Posted]:
    found = [decode_request(each.value or b"") for each in await at.records("requests")]
    return [each for each in found if isinstance(each, Posted)]


async def test_again_and_given_up(tmp_path: Path) -> None:
    """What is not taken is posted again, more and more seldom, by another control, too, under the same id;
    after a day it is given up. What was taken is not posted again."""
    authority, clock = trustme.CA(), Clock(NOON)
    authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
    settings = allowing(tmp_path, "127.0.0.0/8", "127.0.0.9")
    async with HookServer(context(authority, HOOK)) as hook:

        async def hooked(at: Office) -> Hooks:
            at.desk.deps.dns.__init__(at.zone.servers, clock, 2.0)  # type: ignore[misc]
            await at.until(lambda: at.desk.notices.memory.whole)
            return Hooks(at.desk.deps._replace(config=settings), at.desk.register, at.desk.notices.memory)

        async with office(tmp_path, text=ZONE, log_clock=clock) as at:
            hooks = await hooked(at)
            await at.desk.domain_add(NAME, contact=f"https://{HOOK}:{hook.port}/", contact_secret=SECRET)
            await primary(at, Health.DOWN)
            hook.status = 503
            await tended(at, 1900)
            await hooks.round()
            await hooks.round()
            assert len(hook.posts) == 1
            clock.advance(31)
            await hooks.round()
            assert len(hook.posts) == 2
            assert await outcomes(at) == []
        async with office(tmp_path, text=ZONE, log_clock=clock) as at:
            hooks, hook.status = await hooked(at), 204
            await hooks.round()
            await hooks.round()
            (taken,) = await outcomes(at)
            assert (taken.taken, taken.cause) == (True, "down")
            assert len({post.headers["webhook-id"] for post in hook.posts}) == 1
            assert len(hook.posts) == 3
            assert all(verified(post.headers, post.body, SECRET) for post in hook.posts)
            await primary(at, Health.UP)
            hook.status = 503
            await tended(at, 700)
            await hooks.round()
            clock.advance(86_400)
            at.desk.deps.events.emit(Event(type=EventType.TICK))
            await at.desk.deps.events.flush()
            await hooks.round()
            _, given_up = await outcomes(at)
            assert (given_up.taken, given_up.cause, given_up.why) == (False, "back", "status 503")
            await at.desk.deps.events.flush()
            assert "given up: status 503" in at.events.getvalue()
            sample = at.desk.deps.metrics.registry.get_sample_value
            posts = [
                sample("backupmx_webhook_posts_total", {"outcome": each}) for each in ("taken", "given up")
            ]
            assert posts == [1, 1]
            assert sample("backupmx_webhook_posts_total", {"outcome": "failed"}) == 1


async def test_taken_and_not_written_down(tmp_path: Path) -> None:
    """What was taken is not posted again because the log did not take that; it is written down later."""
    authority, clock = trustme.CA(), Clock(NOON)
    authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
    settings = allowing(tmp_path, "127.0.0.0/8", "127.0.0.9")
    async with (
        HookServer(context(authority, HOOK)) as hook,
        office(tmp_path, text=ZONE, log_clock=clock) as at,
    ):
        desk = at.desk
        await desk.domain_add(NAME, contact=f"https://{HOOK}:{hook.port}/")
        await primary(at, Health.DOWN)
        await tended(at, 1900)
        hooks = Hooks(desk.deps._replace(config=settings), desk.register, desk.notices.memory)
        claim = desk.register.claims.held[0]
        desk.register.claims.lost(claim)
        await hooks.round()
        await hooks.round()
        assert await outcomes(at) == []
        desk.register.claims.gained(claim)
        await hooks.round()
        (taken,) = await outcomes(at)
        assert taken.taken
        assert len(hook.posts) == 1


async def test_another_contact(tmp_path: Path) -> None:
    """What was for a contact that is none any more is posted to nobody."""
    clock = Clock(NOON)
    async with office(tmp_path, log_clock=clock) as at:
        hooks = Hooks(at.desk.deps, at.desk.register, at.desk.notices.memory)
        await at.desk.domain_add(NAME, contact=f"https://{HOOK}/")
        await primary(at, Health.DOWN)
        await tended(at, 1900)
        await at.desk.domain_set(NAME, contact="owner@elsewhere.example")
        await hooks.round()
        (one,) = await outcomes(at)
        assert (one.taken, one.why) == (False, "it is the contact no more")
