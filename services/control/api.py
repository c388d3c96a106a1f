"""The desk over HTTP on a Unix socket: JSON in, JSON out; what is refused is {"error": one sentence}."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libs.log.contract import LogError
from services.control.desk import Desk
from services.control.domains import Malformed, Refused, Unknown
from services.control.door import PAGE
from services.control.queue import Cursor

_Page = Callable[[Request], Awaitable[Any]]


def application(desk: Desk) -> Starlette:
    """GET and POST /domains; GET, PATCH and DELETE /domains/NAME; GET /queue, /queue/ID, /vault, /vault/ID,
    /trace/ID, /domains/NAME/doctor, /export; POST /apply, /vault/ID/delete; GET and POST
    /domains/NAME/recipients; POST /domains/NAME/flush, .../release and .../stop, /requests/VERB; GET and POST
    /access; POST /access/remove, /announce."""

    async def domain_list(_: Request) -> Any:
        return desk.domain_list()

    async def domain_add(request: Request) -> Any:
        name, given = await _text(request, "domain"), await _texts(request)
        return await desk.domain_add(name, **{each: given[each] for each in given if each != "domain"})

    async def domain_set(request: Request) -> Any:
        return await desk.domain_set(request.path_params["name"], **await _texts(request))

    async def domain_show(request: Request) -> Any:
        return await desk.domain_show(request.path_params["name"])

    async def domain_remove(request: Request) -> Any:
        words = await _texts(request) if await request.body() else {}
        how, by = words.get("how", "empty"), words.get("by", "")
        return await desk.domain_remove(request.path_params["name"], how, by)

    async def top(_: Request) -> Any:
        return desk.top()

    async def timeline(request: Request) -> Any:
        return [msgspec.to_builtins(each) for each in await desk.domain_timeline(request.path_params["name"])]

    async def apply(request: Request) -> Any:
        wanted = await _wanted(request)
        if wanted.dry:
            return desk.declaring.planned(wanted.domains, prune=wanted.prune)
        return await desk.declaring.apply(wanted.domains, prune=wanted.prune)

    async def export(request: Request) -> Any:
        return desk.declaring.export(request.query_params.get("format", "toml"))

    async def doctor(request: Request) -> Any:
        language = request.query_params.get("language", "en")
        last = request.query_params.get("last", "") == "yes"
        return await desk.consulting.about(request.path_params["name"], language, last=last)

    async def recipients(request: Request) -> Any:
        after = request.query_params.get("after")
        return await desk.rolls.page(
            request.path_params["name"], None if after is None else _number("after", after)
        )

    async def recipients_tell(request: Request) -> Any:
        said = await _said(request)
        return await desk.rolls.tell(request.path_params["name"], said.verb, said.addresses, said.by)

    async def release(request: Request) -> Any:
        return await desk.domain_release(request.path_params["name"], await _text(request, "by"))

    async def stop(request: Request) -> Any:
        how, by = await _text(request, "how"), await _text(request, "by")
        return await desk.domain_stop(request.path_params["name"], how, by)

    async def flush(request: Request) -> Any:
        return await desk.queue_flush(request.path_params["name"], await _text(request, "by"))

    async def announce(request: Request) -> Any:
        host, address, by = [await _text(request, name) for name in ("host", "address", "by")]
        return await desk.notices.announce(host, address, (await _texts(request)).get("from"), by)

    async def access_list(_: Request) -> Any:
        return desk.access_list()

    async def access_add(request: Request) -> Any:
        rule, subject, by = [await _text(request, name) for name in ("rule", "subject", "by")]
        return await desk.access_add(rule, subject, (await _texts(request)).get("for"), by)

    async def access_remove(request: Request) -> Any:
        return await desk.access_remove(await _text(request, "subject"), await _text(request, "by"))

    async def queue_list(request: Request) -> Any:
        query = request.query_params
        after = _cursor(query.get("after"))
        return await desk.queue_page(query.get("domain"), after, _number("limit", query.get("limit")))

    async def queue_show(request: Request) -> Any:
        return await desk.queue_show(request.path_params["id"])

    async def queue_do(request: Request) -> Any:
        words, by = await _texts(request), await _text(request, "by")
        given = {name: words[name] for name in words if name != "by"}
        return await desk.queue_do(request.path_params["verb"], given, by)

    async def vault_list(request: Request) -> Any:
        query = request.query_params
        after = _cursor(query.get("after"))
        return await desk.vault_page(query.get("domain"), after, _number("limit", query.get("limit")))

    async def vault_show(request: Request) -> Any:
        return await desk.vault_show(request.path_params["id"])

    async def vault_delete(request: Request) -> Any:
        return await desk.vault_delete(request.path_params["id"], await _text(request, "by"))

    async def trace(request: Request) -> Any:
        return await desk.trace(request.path_params["id"])

    async def trace_of(request: Request) -> Any:
        return await desk.trace_of(request.query_params.get("address", ""))

    return Starlette(
        routes=[
            Route("/domains", _page(desk, domain_list), methods=["GET"]),
            Route("/domains", _page(desk, domain_add), methods=["POST"]),
            Route("/domains/{name}", _page(desk, domain_show), methods=["GET"]),
            Route("/domains/{name}", _page(desk, domain_set), methods=["PATCH"]),
            Route("/domains/{name}", _page(desk, domain_remove), methods=["DELETE"]),
            Route("/domains/{name}/recipients", _page(desk, recipients), methods=["GET"]),
            Route("/domains/{name}/recipients", _page(desk, recipients_tell), methods=["POST"]),
            Route("/apply", _page(desk, apply), methods=["POST"]),
            Route("/export", _page(desk, export), methods=["GET"]),
            Route("/domains/{name}/doctor", _page(desk, doctor), methods=["GET"]),
            Route("/top", _page(desk, top), methods=["GET"]),
            Route("/domains/{name}/timeline", _page(desk, timeline), methods=["GET"]),
            Route("/domains/{name}/flush", _page(desk, flush), methods=["POST"]),
            Route("/domains/{name}/release", _page(desk, release), methods=["POST"]),
            Route("/domains/{name}/stop", _page(desk, stop), methods=["POST"]),
            Route("/announce", _page(desk, announce), methods=["POST"]),
            Route("/access", _page(desk, access_list), methods=["GET"]),
            Route("/access", _page(desk, access_add), methods=["POST"]),
            Route("/access/remove", _page(desk, access_remove), methods=["POST"]),
            Route("/queue", _page(desk, queue_list), methods=["GET"]),
            Route("/queue/{id:path}", _page(desk, queue_show), methods=["GET"]),
            Route("/requests/{verb}", _page(desk, queue_do), methods=["POST"]),
            Route("/vault", _page(desk, vault_list), methods=["GET"]),
            Route("/vault/{id:path}", _page(desk, vault_show), methods=["GET"]),
            Route("/vault/{id:path}/delete", _page(desk, vault_delete), methods=["POST"]),
            Route("/trace", _page(desk, trace_of), methods=["GET"]),
            Route("/trace/{id:path}", _page(desk, trace), methods=["GET"]),
        ]
    )


def _page(desk: Desk, answer: _Page) -> Callable[[Request], Awaitable[Response]]:
    async def page(request: Request) -> Response:
        try:
            response = JSONResponse(await answer(request))
        except Refused as error:
            code = 400 if isinstance(error, Malformed) else 404 if isinstance(error, Unknown) else 409
            return JSONResponse({"error": str(error)}, code)
        except LogError as error:
            return JSONResponse({"error": f"the log cannot do that now: {error}"}, 503)
        except Exception:
            structlog.get_logger().error("control failed to answer", path=request.url.path, exc_info=True)
            return JSONResponse({"error": "control failed to answer: its log says why"}, 500)
        if not desk.fresh():
            response.headers["stale"] = "1"  # the log has been away for a while
        return response

    return page


async def _text(request: Request, name: str) -> str:
    """The member `name` of the JSON object in the request. Raises Malformed."""
    try:
        return (await _texts(request))[name]
    except KeyError as error:
        raise Malformed(f"the request lacks {name!r}") from error


async def _texts(request: Request) -> dict[str, str]:
    """The JSON object in the request, whose values are text. Raises Malformed."""
    try:
        given = await request.json()
    except ValueError as error:
        raise Malformed("the request is no JSON") from error
    if not isinstance(given, dict):
        raise Malformed("the request is no JSON object")
    for name, value in given.items():
        if not isinstance(value, str):
            raise Malformed(f"{name!r} must be text")
    return given


class Said(Struct):
    """What the operator says of recipients: `verb` import, allow or forget."""

    verb: str
    addresses: list[str]
    by: str


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """`domains`: name -> settings as they are typed; `dry`: only say what would be done."""

    domains: dict[str, dict[str, str]]
    prune: bool = False
    dry: bool = False


async def _wanted(request: Request) -> Wanted:
    """Raises Malformed."""
    try:
        return msgspec.json.decode(await request.body(), type=Wanted)
    except msgspec.MsgspecError as error:
        raise Malformed(f"the request is malformed: {error}") from error


async def _said(request: Request) -> Said:
    """Raises Malformed."""
    try:
        return msgspec.json.decode(await request.body(), type=Said)
    except msgspec.MsgspecError as error:
        raise Malformed(f"the request is malformed: {error}") from error


def _number(name: str, text: str | None) -> int:
    """A parameter; where it was not given, a page's length. Raises Malformed."""
    if text is None:
        return PAGE
    if not text.isascii() or not text.isdigit():
        raise Malformed(f"`{name}` must be a number")
    return int(text)


def _cursor(text: str | None) -> Cursor | None:
    """`ARRIVED,ID`. Raises Malformed."""
    if text is None:
        return None
    arrived, _, mail_id = text.partition(",")
    try:
        return Cursor(float(arrived), mail_id)
    except ValueError as error:
        raise Malformed("`after` is not what a page gave") from error
