"""`ipo serve`: a local page over all run folders."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path
from typing import Annotated

import typer

from ipo.errors import ConfigError
from ipo.packages import extra_remedy, is_installed
from ipo.runs.path import RUNS
from ipo.screen import say
from ipo.store.disk import reason_of


def serve(
    runs: Annotated[Path, typer.Argument(help="Folder that holds run folders, or one of them.")] = RUNS,
    write: Annotated[
        bool, typer.Option("--write", help="Let the page stop runs and add sentences; else it only shows.")
    ] = False,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; another one asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8421,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A name that the server is called by, beside its address.")
    ] = None,
) -> None:
    """Show all runs in a browser: list, compare, follow those under way, try sentences, open reports.

    Examples:

      ipo serve

      ipo serve runs --write

      ipo serve --host 0.0.0.0 --allow-host workstation.lan
    """
    for package in ("starlette", "uvicorn"):
        if not is_installed(package):
            raise ConfigError(f"{package} is not installed", remedy=extra_remedy("serve"))
    if not runs.is_dir():
        raise ConfigError("this folder is not there", where=str(runs), remedy="Give the folder that holds your runs")

    from ipo.serve.app import make_app
    from ipo.serve.guard import access_for, is_loopback

    access = access_for(host, tuple(allow_host or ()), write)
    listening = _listen(host, port)
    place = f"[{host}]" if ":" in host else host
    query = f"/?token={access.token}" if access.token else "/"
    say(f"Serving {runs} ({'with' if write else 'without'} writing). Ctrl-C ends it.")
    print(f"http://{place}:{listening.getsockname()[1]}{query}", flush=True)
    if not is_loopback(host):
        say("warning: others on the network can reach this; the token in the address lets them in")
    uvicorn = importlib.import_module("uvicorn")
    config = uvicorn.Config(make_app(runs, access), log_level="warning", server_header=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `ConfigError` where the address cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        remedy = "Give another --port, or --port 0 for a free one"
        raise ConfigError(f"cannot listen: {reason_of(error)}", where=f"{host}:{port}", remedy=remedy) from error
