"""The server as a program: the application on a port, and workers beside it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_urlsafe

import uvicorn

from longtake.errors import InputError
from longtake.web.app import create_app
from longtake.web.settings import LOOPBACK, Served, Settings, default_home

__all__ = ["serve", "settings_of"]

PAUSES = (1.0, 2.0, 5.0, 15.0, 30.0)  # seconds before a worker that died is started again; the last one for ever
WELL = 60.0  # seconds after which a worker that dies is a new case
GRACE = 10.0  # seconds that a worker has to put its work down


def serve(asked: Served) -> int:
    """Serves until it is interrupted.

    Raises:
        InputError: the port is taken, or an option cannot be used.
    """
    settings = settings_of(asked)
    listening = _bound(settings.host, settings.port)
    port = listening.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings, leaving=lambda: server.should_exit),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=3,
            timeout_keep_alive=30,
            server_header=False,
        )
    )
    everywhere = settings.host in ("0.0.0.0", "::")
    address = _address(socket.gethostname() if everywhere else settings.host, port)
    print(f"longtake studio: {address}/", file=sys.stderr)
    if settings.token and not asked.token:
        print(f"token: {settings.token}", file=sys.stderr)
    with _crew(_address("127.0.0.1" if everywhere else settings.host, port), settings.token, asked.workers):
        if asked.open:
            threading.Timer(1.0, webbrowser.open, [address]).start()
        server.run(sockets=[listening])
    return 0


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def settings_of(asked: Served) -> Settings:
    """How the studio is set up.

    Raises:
        InputError: an option cannot be used.
    """
    if asked.workers < 0:
        raise InputError(f"--workers {asked.workers}: 0 or more would do")
    if asked.loras is not None and not asked.loras.is_dir():
        raise InputError(f"--loras {asked.loras}: there is no such folder")
    models = {_id(name): name for name in asked.model or ("embedded",)}
    token = asked.token or (None if asked.host in LOOPBACK else token_urlsafe(24))
    return Settings(
        home=(asked.home or default_home(os.environ)).expanduser().absolute(),
        host=asked.host,
        port=asked.port,
        models=models,
        token=token,
        origins=tuple(origin.rstrip("/") for origin in asked.allow_origin),
        loras=asked.loras.absolute() if asked.loras else None,
    )


def _id(model: str) -> str:
    """What a model is called over HTTP: its name, or that of its folder."""
    return Path(model).expanduser().resolve().name if Path(model).expanduser().is_dir() else model


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(f"{host}:{port}: cannot listen there ({error}); another --port would do") from None
    listening.listen(128)
    return listening


@contextmanager
def _crew(server: str, token: str | None, count: int) -> Iterator[None]:
    """So many workers of this machine, each started again when it dies; ended at the end."""
    environ = {**os.environ, **({"LONGTAKE_TOKEN": token} if token else {})}
    ending = threading.Event()
    keepers = [
        threading.Thread(
            target=_keep,
            args=(
                [sys.executable, "-m", "longtake.cli.leash", "worker", "--server", server, "--name", f"local-{n}"],
                environ,
                ending,
            ),
            daemon=True,
        )
        for n in range(1, count + 1)
    ]
    for keeper in keepers:
        keeper.start()
    try:
        yield
    finally:
        ending.set()
        for keeper in keepers:
            keeper.join(GRACE + 5)


def _keep(command: Sequence[str], environ: Mapping[str, str], ending: threading.Event) -> None:
    """Runs a program, again and again, until it is to end."""
    failures = 0
    while not ending.is_set():
        began = time.monotonic()
        # Its input is a pipe of ours that says nothing, and ends when this process does, however it does.
        with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, start_new_session=True) as process:
            while process.poll() is None and not ending.wait(0.25):
                pass
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
        if not ending.is_set():
            failures = 0 if time.monotonic() - began > WELL else failures + 1
            pause = PAUSES[min(failures, len(PAUSES) - 1)]
            print(f"a worker ended ({process.returncode}); it is started again in {pause:g} s", file=sys.stderr)
            ending.wait(pause)
