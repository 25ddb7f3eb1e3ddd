"""Servers and workers that are killed (-9), or told to leave: no job is lost, and no video is another one."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from server import tiny_job
from studio import Studio, survive

FAULTLESS = {"lost": 0, "doubled": 0, "failed": 0, "unequal": 0, "sections_made_twice": 0, "leftovers": 0}


@pytest.fixture
def studio(tiny_backbone_folder, tmp_path):
    """A server whose leases are short, and a worker."""
    studio = Studio(tmp_path, {"tiny": str(tiny_backbone_folder)})
    try:
        studio.begin("server")
        studio.begin("worker")
        yield studio
    finally:
        studio.close()


def check(outcome):
    assert {name: getattr(outcome, name) for name in FAULTLESS} == FAULTLESS
    assert outcome.sections_seen_at_a_kill > 0
    assert outcome.kills_in_work > 0


def test_jobs_survive_kills_of_server_and_worker(studio, tmp_path):
    """Seed 3 kills each of server, worker, and both."""
    outcome = survive(studio, tiny_job(studio, tmp_path), kills=3, seed=3, span=0.6)
    assert min(outcome.kills.values()) == 1
    check(outcome)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_survive_fifty_kills(studio, tmp_path):
    check(survive(studio, tiny_job(studio, tmp_path), kills=50, seed=1, span=1.5))


def test_what_a_killed_worker_leaves_behind_is_swept_by_the_next_one(studio, tmp_path):
    asked = tiny_job(studio, tmp_path)
    job = studio.submit(**{**asked, "seconds": 90})
    studio.until(lambda: list(studio.home.glob(f"jobs/{job}/sections/*")))
    studio.kill("worker")
    (left,) = (path for path in (tmp_path / "scratch").iterdir() if path.is_dir())
    studio.begin("worker")
    studio.done(job)
    assert not left.exists()
    studio.until(lambda: not list((tmp_path / "scratch").iterdir()))


def test_a_worker_that_is_told_to_leave_leaves_at_once_and_the_job_goes_on(studio, tmp_path):
    """SIGTERM in the middle of work gives the job back, and there is no waiting for its lease."""
    asked = tiny_job(studio, tmp_path)
    first = studio.submit(**asked)
    studio.done(first)
    second = studio.submit(**{**asked, "seconds": 90})
    studio.until(lambda: list(studio.home.glob(f"jobs/{second}/sections/*")))
    studio.kill("worker", signal.SIGTERM)
    assert studio.video(second)["status"] == "queued"
    studio.begin("worker")
    assert studio.done(second)["progress"] == 100


def test_an_idle_worker_leaves_when_it_is_told(studio):
    studio.until(lambda: studio.client.get("/health").json()["workers"] == 1)
    studio.kill("worker", signal.SIGTERM)
    assert "Traceback" not in studio.log.read_text()


def test_the_worker_of_the_command_line_makes_a_job_and_leaves(studio, tmp_path):
    studio.kill("worker")
    job = studio.submit(**tiny_job(studio, tmp_path))
    command = [sys.executable, "-m", "longtake", "worker", "--server", studio.url, "--device", "cpu", "--once"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert studio.video(job)["status"] == "completed"
    assert studio.video(job)["longtake"]["worker"] is None
