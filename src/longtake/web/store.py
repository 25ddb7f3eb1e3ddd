"""What the studio remembers, in SQLite: jobs, their sections, uploads, and what happened, numbered.

Every change is one transaction, and what it tells is part of it: after a kill at any moment both are there, or neither.
Readers and writers take turns on one connection; each turn is short.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Literal

from longtake.web.job import Job, Part, video_of
from longtake.web.refusal import missing

__all__ = ["Note", "Page", "Store"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, status TEXT NOT NULL, rank REAL NOT NULL,
  lease TEXT UNIQUE, kin TEXT NOT NULL, words TEXT NOT NULL, body TEXT NOT NULL, plan TEXT);
CREATE INDEX IF NOT EXISTS queue ON jobs (status, rank);
CREATE INDEX IF NOT EXISTS kin ON jobs (kin);
CREATE TABLE IF NOT EXISTS sections (
  job TEXT NOT NULL, number INTEGER NOT NULL, place INTEGER NOT NULL, state TEXT NOT NULL, step INTEGER NOT NULL,
  steps INTEGER NOT NULL, seconds REAL, meter TEXT, PRIMARY KEY (job, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, type TEXT NOT NULL, section INTEGER, status TEXT,
  data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS history ON events (job, type);
CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, body TEXT NOT NULL);
PRAGMA user_version = 1;
"""
NEAR = 32  # places of the queue whose changes are told
# What a note of a type makes needless, of the same job: an SQL condition on older notes.
SUPERSEDED = {
    "step": "type = 'step'",
    "preview": "type = 'preview'",
    "section": "type IN ('step', 'preview') AND section IS :section",
    "plan": "type = 'plan'",
    "job": "type = 'job' AND status IS :status",
    "deleted": "1",
}


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened."""

    seq: int
    job: str
    type: str
    data: str  # JSON

    @property
    def encoded(self) -> bytes:
        """As a stream of server-sent events has it."""
        return f"id: {self.seq}\nevent: {self.type}\ndata: {self.data}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the jobs in a row, and whether there are more."""

    jobs: tuple[Job, ...]
    more: bool


class Store:
    """The memory of a studio."""

    def __init__(self, path: Path, told: Callable[[Sequence[Note]], None] = lambda notes: None) -> None:
        self._lock, self._told, self._notes, self._depth = RLock(), told, list[Note](), 0
        self._near = dict[str, int]()  # the positions that were told last
        self._queue_changed = False
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")  # safe against a kill; a power cut can take the last moment
        self._db.executescript(SCHEMA)
        self._near = {job: at for at, job in enumerate(self.queue(NEAR))}

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction: all of it happens, or nothing; what was told in it is passed on at its end."""
        with self._lock:
            if self._depth:  # part of a larger one
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._depth, near = 1, dict(self._near)
            try:
                yield
                if self._queue_changed:
                    self._tell_queue()
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                self._notes, self._near = [], near
                raise
            finally:
                self._depth, self._queue_changed = 0, False
            notes, self._notes = self._notes, []
            if notes:
                self._told(notes)

    def _all(self, sql: str, *values: Any) -> list[tuple]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    # Jobs.

    def job(self, id: str) -> Job:
        """A job by its id.

        Raises:
            Refusal: there is none.
        """
        rows = self._all("SELECT body FROM jobs WHERE id = ?", id)
        if not rows:
            raise missing("video", id)
        return Job.model_validate_json(rows[0][0])

    def leased(self, lease: str) -> Job | None:
        """The job that a lease is for."""
        rows = self._all("SELECT body FROM jobs WHERE lease = ?", lease)
        return Job.model_validate_json(rows[0][0]) if rows else None

    def leases(self) -> list[str]:
        """All leases."""
        return [lease for (lease,) in self._all("SELECT lease FROM jobs WHERE lease IS NOT NULL")]

    def ids(self, *status: str) -> list[str]:
        """The ids of jobs in some states; of all where none is named."""
        where = f"WHERE status IN ({', '.join('?' * len(status))})" if status else ""
        return [id for (id,) in self._all(f"SELECT id FROM jobs {where} ORDER BY number", *status)]

    def count(self, status: str) -> int:
        """How many jobs are in a state."""
        return self._all("SELECT count(*) FROM jobs WHERE status = ?", status)[0][0]

    def queue(self, most: int = -1) -> list[str]:
        """The ids of waiting jobs, the next one first."""
        rows = self._all("SELECT id FROM jobs WHERE status = 'queued' ORDER BY rank, number LIMIT ?", most)
        return [id for (id,) in rows]

    def position(self, job: Job) -> int | None:
        """How many jobs are before one in the queue."""
        if job.status != "queued":
            return None
        sql = """SELECT count(*) FROM jobs WHERE status = 'queued' AND (rank < :rank OR (rank = :rank AND
                 number < (SELECT number FROM jobs WHERE id = :id)))"""
        with self._lock:
            return self._db.execute(sql, {"rank": job.rank, "id": job.id}).fetchone()[0]

    def rank(self, end: Literal["first", "last"]) -> float:
        """The rank of a job that would be the first or the last of the queue."""
        low, high = self._all("SELECT min(rank), max(rank) FROM jobs WHERE status = 'queued'")[0]
        return {"first": (low or 0.0) - 1.0, "last": (high or 0.0) + 1.0}[end]

    def page(self, limit: int, after: str | None, rising: bool, status: str | None, words: str | None) -> Page:
        """Jobs in the order in which they were asked for, or the other way round.

        Raises:
            Refusal: there is no job `after`.
        """
        where, values = list[str](), list[Any]()
        if after is not None:
            found = self._all("SELECT number FROM jobs WHERE id = ?", after)
            if not found:
                raise missing("video", after)
            where.append("number > ?" if rising else "number < ?")
            values.append(found[0][0])
        if status:
            where.append("status = ?")
            values.append(status)
        for word in (words or "").casefold().split():
            where.append("instr(words, ?) > 0")
            values.append(word)
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        way = "ASC" if rising else "DESC"
        rows = self._all(f"SELECT body FROM jobs {condition} ORDER BY number {way} LIMIT ?", *values, limit + 1)
        return Page(tuple(Job.model_validate_json(body) for (body,) in rows[:limit]), len(rows) > limit)

    def add(self, job: Job, plan: Mapping[str, Any] | None) -> None:
        """Keeps a new job."""
        sql = "INSERT INTO jobs (id, status, rank, lease, kin, words, body, plan) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        with self.change():
            self._db.execute(sql, (*_columns(job), json.dumps(plan) if plan else None))
            self._queue_changed = True

    def put(self, job: Job, tell: bool = False) -> None:
        """Keeps a job as it is now; tells of it if it is to."""
        sql = """UPDATE jobs SET id = ?, status = ?, rank = ?, lease = ?, kin = ?, words = ?, body = ? WHERE id = ?"""
        with self.change():
            self._db.execute(sql, (*_columns(job), job.id))
            if tell:
                self._queue_changed = True
                self.tell_job(job)

    def between(self, id: str, before: str | None) -> float:
        """A rank for a waiting job right before another one, or behind all."""
        if before is None:
            return self.rank("last")
        high = self.job(before).rank
        sql = "SELECT max(rank) FROM jobs WHERE status = 'queued' AND rank < ? AND id != ?"
        low = self._all(sql, high, id)[0][0]
        middle = high - 1.0 if low is None else (low + high) / 2
        if low is not None and not low < middle < high:  # halved too often: all get whole numbers again
            self._number_queue()
            return self.between(id, before)
        return middle

    def _number_queue(self) -> None:
        sql = "UPDATE jobs SET rank = ?1, body = json_set(body, '$.rank', ?1) WHERE id = ?2"
        with self.change():
            self._db.executemany(sql, [(float(rank), id) for rank, id in enumerate(self.queue())])

    def remove(self, id: str) -> None:
        """Forgets a job, and says so."""
        with self.change():
            self._db.execute("DELETE FROM jobs WHERE id = ?", (id,))
            self._db.execute("DELETE FROM sections WHERE job = ?", (id,))
            self._queue_changed = True
            self._near.pop(id, None)
            self.tell("deleted", id, {"id": id})

    # Plans and sections.

    def plan(self, id: str) -> dict[str, Any] | None:
        """The plan of a job."""
        rows = self._all("SELECT plan FROM jobs WHERE id = ?", id)
        return json.loads(rows[0][0]) if rows and rows[0][0] else None

    def put_plan(self, id: str, plan: Mapping[str, Any]) -> None:
        """Keeps a plan, and tells it."""
        with self.change():
            self._db.execute("UPDATE jobs SET plan = ? WHERE id = ?", (json.dumps(plan), id))
            self.tell("plan", id, {"id": id, "plan": plan})

    def parts(self, id: str) -> list[Part]:
        """The sections of a job in the order of making."""
        sql = "SELECT number, place, state, step, steps, seconds, meter FROM sections WHERE job = ? ORDER BY number"
        return [Part(*row[:6], meter=json.loads(row[6]) if row[6] else None) for row in self._all(sql, id)]

    def put_parts(self, id: str, parts: Iterable[Part], anew: bool = False) -> None:
        """Keeps sections as they are now; `anew`: there are no others."""
        sql = "INSERT OR REPLACE INTO sections VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        with self.change():
            if anew:
                self._db.execute("DELETE FROM sections WHERE job = ?", (id,))
            self._db.executemany(
                sql,
                [(id, p.index, p.place, p.state, p.step, p.steps, p.seconds, json.dumps(p.meter) if p.meter else None)
                 for p in parts],
            )  # fmt: skip

    def usual_seconds(self, kin: str) -> float | None:
        """What a step took lately in jobs like that."""
        sql = """SELECT avg(each) FROM (SELECT s.seconds / max(1, s.steps) AS each FROM jobs j
                 JOIN sections s ON s.job = j.id WHERE j.kin = ? AND s.seconds IS NOT NULL
                 ORDER BY j.number DESC, s.number DESC LIMIT 32)"""
        return self._all(sql, kin)[0][0]

    def video(self, job: Job, plan: bool = True) -> dict[str, Any]:
        """A job as JSON says it."""
        with self._lock:
            return video_of(job, self.position(job), self.parts(job.id), self.plan(job.id) if plan else None)

    # What happened.

    def tell(
        self, type: str, job: str, data: Mapping[str, Any], section: int | None = None, status: str | None = None
    ) -> None:
        """Notes that something happened; what it supersedes is forgotten."""
        with self.change():
            if condition := SUPERSEDED.get(type):
                sql = f"DELETE FROM events WHERE job = :job AND {condition}"
                self._db.execute(sql, {"job": job, "section": section, "status": status})
            text = json.dumps(data, separators=(",", ":"))
            sql = "INSERT INTO events (job, type, section, status, data) VALUES (?, ?, ?, ?, ?)"
            seq = self._db.execute(sql, (job, type, section, status, text)).lastrowid
            self._notes.append(Note(seq or 0, job, type, text))

    def tell_job(self, job: Job) -> None:
        """Notes how a job is now."""
        video = self.video(job, plan=False)
        position = video["longtake"]["position"]
        if position is None or position >= NEAR:
            self._near.pop(job.id, None)
        else:
            self._near[job.id] = position
        self.tell("job", job.id, video, status=job.status)

    def _tell_queue(self) -> None:
        """Tells the jobs near the front of the queue whose position changed."""
        for at, id in enumerate(self.queue(NEAR)):
            if self._near.get(id) != at:
                self.tell_job(self.job(id))

    def notes(self, after: int, job: str | None = None, most: int = 500) -> list[Note]:
        """What happened after a number, to one job or to any, as far as it is not superseded."""
        where, values = ("AND job = ?", (job,)) if job else ("", ())
        sql = f"SELECT seq, job, type, data FROM events WHERE seq > ? {where} ORDER BY seq LIMIT ?"
        return [Note(*row) for row in self._all(sql, after, *values, most)]

    def newest(self) -> int:
        """The number of what happened last."""
        rows = self._all("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        return rows[0][0] if rows else 0

    # Uploads.

    def upload(self, id: str) -> dict[str, Any] | None:
        """What is known of an upload."""
        rows = self._all("SELECT body FROM uploads WHERE id = ?", id)
        return json.loads(rows[0][0]) if rows else None

    def add_upload(self, id: str, body: Mapping[str, Any]) -> None:
        """Keeps what is known of an upload."""
        with self.change():
            self._db.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?)", (id, json.dumps(body)))

    def is_used(self, upload: str) -> bool:
        """True if a job was asked for with an upload."""
        return bool(self._all("SELECT 1 FROM jobs WHERE instr(body, ?) > 0 LIMIT 1", upload))

    def forget_upload(self, id: str) -> None:
        """Forgets an upload, whose file is gone."""
        with self.change():
            self._db.execute("DELETE FROM uploads WHERE id = ?", (id,))


def _columns(job: Job) -> tuple[Any, ...]:
    return job.id, job.status, job.rank, job.lease, job.kin, job.words, job.model_dump_json()
