"""The pages and answers of `ipo serve`, as a Starlette application behind the guard."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ipo.errors import ConfigError, IpoError, UnknownName
from ipo.export.source import read_exported
from ipo.export.texts import TEXTS
from ipo.render import asset, render
from ipo.report.curves import history_charts
from ipo.report.pages import page_values, write_reports
from ipo.screen import safe_line
from ipo.serve.bench import Bench
from ipo.serve.compared import compare
from ipo.serve.guard import Access, Guard
from ipo.serve.runs import find_runs, is_worked_on, read_history, rows_from, summary
from ipo.store.stop import ask_to_stop

_ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "serve.js": "text/javascript"}
_SUFFIXES = {"json": "json", "clip-benchmark": "json", "open_clip": "py", "transformers": "py", "text": "txt"}

Answer = Callable[[Request], Response]


class Served:
    """The runs below a folder, as pages; what each request does."""

    def __init__(self, root: Path, access: Access) -> None:
        self._root, self._access, self._bench = root, access, Bench()

    def routes(self) -> list[Route]:
        """All addresses. A run is named by a query, since its name may hold slashes."""
        reading: dict[str, Answer] = {
            "/": self.list,
            "/run": self.run,
            "/report": self.report,
            "/compare": self.compare,
            "/chart": self.chart,
            "/export": self.export,
            "/api/rows": self.rows,
            "/assets/{name}": self.asset,
        }
        writing: dict[str, Answer] = {"/api/stop": self.stop, "/api/add": self.add}
        routes = [Route(path, _answering(answer), methods=["GET"]) for path, answer in reading.items()]
        routes += [Route("/api/try", _answering(self.attempt), methods=["POST"])]
        return routes + [
            Route(path, _answering(partial(self._write, answer)), methods=["POST"]) for path, answer in writing.items()
        ]

    def _folder(self, request: Request) -> tuple[str, Path]:
        """The run that a request names: one of those that were found, and no path."""
        name, runs = request.query_params.get("run", ""), find_runs(self._root)
        if name not in runs:
            raise UnknownName("run", name, tuple(runs))
        return name, runs[name]

    def _page(self, template: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(render(template, write=self._access.write, **values))

    def list(self, _: Request) -> Response:
        """All runs."""
        found = [(name, summary(name, folder)) for name, folder in find_runs(self._root).items()]
        return self._page("serve-list.html.j2", runs=found, root=safe_line(str(self._root)))

    def run(self, request: Request) -> Response:
        """One run, which the page follows while it is running."""
        name, folder = self._folder(request)
        values = page_values(folder, pictures=False)
        formats = list(TEXTS) if values["result"] and values["best"] else []
        told = summary(name, folder)
        return self._page("serve-run.html.j2", **values, address=name, summary=told, formats=formats)

    def report(self, request: Request) -> Response:
        """The report of a run, made now: a file that somebody put into the folder is never shown."""
        _, folder = self._folder(request)
        values = page_values(folder)
        policy = f"{values['policy']}; frame-ancestors 'none'; base-uri 'none'"
        return HTMLResponse(render("report.html.j2", **values), headers={"content-security-policy": policy})

    def chart(self, request: Request) -> Response:
        """The chart of a run as it is now, for the page that follows it."""
        history = read_history(self._folder(request)[1])
        charts = history_charts(history, history.best().id)[:1] if history and history.scored() else []
        return self._page("serve-chart.html.j2", charts=charts)

    def rows(self, request: Request) -> Response:
        """The candidates of a run from one on."""
        start = request.query_params.get("from", "0")
        if not start.isascii() or not start.isdigit() or len(start) > 9:
            raise ConfigError("'from' is no number of a candidate", where=start[:20])
        return JSONResponse(rows_from(self._folder(request)[1], int(start)))

    def compare(self, request: Request) -> Response:
        """Some runs side by side."""
        runs = find_runs(self._root)
        names = list(dict.fromkeys(request.query_params.getlist("run")))
        if unknown := [name for name in names if name not in runs]:
            raise UnknownName("run", unknown[0], tuple(runs))
        heads, sides = compare({name: runs[name] for name in names})
        return self._page("serve-compare.html.j2", heads=heads, sides=list(zip(names, sides, strict=True)))

    def export(self, request: Request) -> Response:
        """What a run found, as a file."""
        _, folder = self._folder(request)
        to = request.query_params.get("to", "")
        if to not in TEXTS:
            raise UnknownName("format", to, tuple(TEXTS))
        headers = {"content-disposition": f'attachment; filename="prompt.{_SUFFIXES[to]}"'}
        return PlainTextResponse(TEXTS[to](read_exported(folder)) + "\n", headers=headers)

    def asset(self, request: Request) -> Response:
        """A style or a script of the pages."""
        name = request.path_params["name"]
        if name not in _ASSETS:
            return PlainTextResponse("There is no such page.", 404)
        return Response(asset(name), media_type=_ASSETS[name])

    def attempt(self, request: Request) -> Response:
        """Score a sentence; nothing is kept of it."""
        return JSONResponse(self._bench.attempt(self._folder(request)[1], _text(request)).to_json())

    def add(self, request: Request) -> Response:
        """Score a sentence and put it into the history."""
        _, folder = self._folder(request)
        entry = self._bench.add(folder, _text(request))
        write_reports(folder)
        return JSONResponse({"id": entry.id})

    def stop(self, request: Request) -> Response:
        """Ask a run to end after its present step."""
        _, folder = self._folder(request)
        if not is_worked_on(folder):
            raise ConfigError("nobody works on this run", remedy="There is nothing to stop")
        ask_to_stop(folder)
        return JSONResponse({"asked": True})

    def _write(self, answer: Answer, request: Request) -> Response:
        if not self._access.write:
            what, remedy = "this server only shows", "Start it with: ipo serve --write"
            return JSONResponse({"error": f"{what}. {remedy}"}, 403)
        return answer(request)


def _text(request: Request) -> str:
    """The sentence in the body of a request. Raises `ConfigError`."""
    try:
        text = json.loads(request.state.body)["text"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError("the request holds no text", remedy='Send {"text": "a photo of a <CLASS>."}') from error
    if not isinstance(text, str):
        raise ConfigError("the text of the request is none", remedy='Send {"text": "a photo of a <CLASS>."}')
    return text


def _answering(answer: Answer) -> Callable[[Request], Any]:
    """An endpoint that works in a thread, and tells errors as the command does."""

    async def endpoint(request: Request) -> Response:
        request.state.body = await request.body()
        try:
            return await run_in_threadpool(answer, request)
        except IpoError as error:
            status = 404 if isinstance(error, UnknownName) else 409
            if request.url.path.startswith("/api/"):
                return JSONResponse({"error": safe_line(str(error))}, status)
            return HTMLResponse(render("serve-error.html.j2", error=safe_line(str(error)), write=False), status)

    return endpoint


def make_app(root: Path, access: Access) -> Guard:
    """The application that serves all runs below `root`."""
    return Guard(Starlette(routes=Served(root, access).routes()), access)
