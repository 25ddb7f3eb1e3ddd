"""`longtake serve` as a program: it answers at once, survives being killed, and keeps its workers."""

import json
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from playing import png

from longtake.cli import main
from longtake.errors import InputError
from longtake.web import serving
from longtake.web.serving import settings_of
from longtake.web.settings import Served

HEAVY = {"torch", "diffusers", "transformers", "peft"}


@contextmanager
def program(*command):
    """A server as a process of its own, and its address; ended in any case."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        assert "http://" in line, line + process.stderr.read()
        yield process, line.split()[-1].rstrip("/")
    finally:
        process.kill()
        process.wait(30)
        process.stderr.close()
        process.stdin.close()


def command(home, *more):
    return (sys.executable, "-m", "longtake", "serve", "--port", "0", "--workers", "0", "--home", str(home), *more)


def test_the_page_and_its_calls_come_without_torch():
    code = (
        "import sys, json, longtake.web.serving; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(json.loads(ran.stdout))


def test_a_server_that_is_killed_at_once_lost_nothing_that_it_answered(tmp_path):
    with program(*command(tmp_path)) as (process, address):
        assert httpx.get(f"{address}/health").json()["engine"] in ("loading", "ready")
        answer = httpx.post(f"{address}/v1/uploads", files={"file": ("a.png", png())})
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    with program(*command(tmp_path)) as (_, address):
        assert httpx.get(f"{address}/v1/uploads/{answer.json()['id']}").content[:4] == b"\x89PNG"


def test_a_server_ends_while_somebody_listens(tmp_path):
    with (
        program(*command(tmp_path)) as (process, address),
        httpx.stream("GET", f"{address}/v1/events", timeout=60) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        process.send_signal(signal.SIGTERM)
        assert list(lines) == [""]
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_what_is_leashed_ends_with_whoever_started_it(tmp_path):
    leashed = (sys.executable, "-m", "longtake.cli.leash", *command(tmp_path)[3:])
    with program(*leashed) as (process, address):
        assert httpx.get(f"{address}/health").status_code == 200
        process.stdin.close()
        assert process.wait(60) in (0, -signal.SIGTERM)


def test_a_worker_that_dies_is_started_again_until_the_end(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(serving, "PAUSES", (0.0,))
    ending, log = threading.Event(), tmp_path / "log"
    code = f"open({str(log)!r}, 'a').write('x'); import sys; sys.exit(3)"
    keeper = threading.Thread(target=serving._keep, args=([sys.executable, "-c", code], {}, ending))
    keeper.start()
    for _ in range(2000):
        if log.exists() and len(log.read_text()) >= 3:
            break
        keeper.join(0.02)
    ending.set()
    keeper.join(30)
    assert not keeper.is_alive()
    assert len(log.read_text()) >= 3
    assert "a worker ended (3)" in capfd.readouterr().err


def test_a_worker_is_asked_to_leave_at_the_end(tmp_path):
    ending, log = threading.Event(), tmp_path / "log"
    code = f"""
import signal, sys
def leave(*_):
    open({str(log)!r}, 'a').write('left')
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
open({str(log)!r}, 'a').write('ready ')
sys.stdin.read()
"""
    keeper = threading.Thread(target=serving._keep, args=([sys.executable, "-c", code], {}, ending))
    keeper.start()
    while not log.exists() or "ready" not in log.read_text():
        keeper.join(0.02)
        assert keeper.is_alive()
    ending.set()
    keeper.join(30)
    assert log.read_text() == "ready left"


def test_a_port_that_is_taken_is_refused(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port), "--home", str(tmp_path), "--workers", "0"]) == 2
    assert "another --port would do" in capsys.readouterr().err


def test_a_token_is_made_where_other_machines_can_call(tmp_path):
    assert settings_of(Served()).token is None
    made = settings_of(Served(host="0.0.0.0")).token
    assert len(made) > 20
    assert settings_of(Served(host="0.0.0.0", token="mine")).token == "mine"
    assert settings_of(Served(token="mine")).token == "mine"


def test_a_model_s_folder_is_called_by_its_name(tmp_path):
    (tmp_path / "mine").mkdir()
    settings = settings_of(
        Served(model=(str(tmp_path / "mine"), "embedded"), home=tmp_path, allow_origin=("http://a/",))
    )
    assert dict(settings.models) == {"mine": str(tmp_path / "mine"), "embedded": "embedded"}
    assert (settings.default_model, settings.origins) == ("mine", ("http://a",))


def test_the_home_is_where_the_system_says(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert settings_of(Served()).home == Path("/data/longtake/studio")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/eva")
    assert settings_of(Served()).home == Path("/home/eva/.local/share/longtake/studio")


@pytest.mark.parametrize("asked", [Served(workers=-1), Served(loras=Path("nowhere"))])
def test_an_option_that_cannot_be_is_refused(asked):
    with pytest.raises(InputError):
        settings_of(asked)
