"""What a user can do with a job: stop it, go on with it, make parts of it anew, or something else of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from secrets import randbits, token_hex

from longtake.errors import LongtakeError, StoryboardError
from longtake.plan import read_prompt
from longtake.web.job import Job, Wish, moved
from longtake.web.refusal import Refusal, sentence
from longtake.web.schema import Wanted
from longtake.web.studio import Studio, now, parts_of, settled

__all__ = ["branch", "delete", "edit", "move", "reroll", "resume", "retell", "wish"]

SEED_BITS = 31  # of seeds that we choose: every reader of JSON has those


def wish(studio: Studio, id: str, wanted: Wish) -> Job:
    """Stops a job: one that waits at once, one in work as soon as its worker hears of it.

    Raises:
        Refusal: it cannot be stopped so in its state.
    """
    with studio.store.change():
        job = studio.store.job(id)
        if job.status == "in_progress":
            if job.stopping == "cancel" and wanted != "cancel":
                raise Refusal("conflict", "this video is being cancelled; resume takes it up again")
            job = job.but(stopping=wanted)
        elif wanted == "stop":
            would = "resume or cancel would do" if job.status == "paused" else "only one in work can be stopped"
            raise Refusal("conflict", f"a video that is {job.status} cannot be stopped; {would}")
        elif (job.status, wanted) in (("paused", "pause"), ("cancelled", "cancel")):
            return job
        else:
            job = moved(job, wanted, completed_at=now() if wanted == "cancel" else None)
        studio.store.put(job, tell=True)
        return job


def resume(studio: Studio, id: str) -> Job:
    """Puts a job that was stopped back into the queue; one in work that is being stopped goes on.

    Raises:
        Refusal: there is nothing to go on with.
    """
    with studio.remaking, studio.store.change():
        job = studio.store.job(id)
        if job.status == "in_progress" and job.stopping:
            job = job.but(stopping=None)
        elif job.status == "queued":
            return job
        elif job.status == "completed" and job.progress == 100:
            raise Refusal("conflict", "this video is complete; reroll makes parts of it anew")
        else:
            job = moved(job, "resume", completed_at=None, error=None, lost=0, rank=studio.store.rank("last"))
        studio.store.put(job, tell=True)
        return job


def delete(studio: Studio, id: str) -> None:
    """Forgets a job with all of its files; its worker loses the lease.

    Raises:
        Refusal: there is none.
    """
    with studio.remaking:
        job = studio.store.job(id)
        studio.store.remove(id)
        if job.lease:
            studio.beats.pop(job.lease, None)
        studio.folders.remove(id)


def move(studio: Studio, id: str, before: str | None) -> Job:
    """Moves a waiting job in the queue: before another one, or to the end.

    Raises:
        Refusal: one of them does not wait.
    """
    with studio.store.change():
        job = studio.store.job(id)
        if job.status != "queued":
            raise Refusal("conflict", f"a video that is {job.status} has no place in the queue; resume puts it there")
        if before is not None and studio.store.job(before).status != "queued":
            raise Refusal("conflict", f"{before} does not wait; null moves to the end", "before")
        if before != id:
            rank = studio.store.between(id, before)  # may number the queue anew
            studio.store.put(studio.store.job(id).but(rank=rank), tell=True)
        return studio.store.job(id)


def reroll(studio: Studio, id: str, section: int, seed: int | None) -> Job:
    """Has everything from a section of the order on made again. It blocks.

    Raises:
        Refusal: there is no such section, or the job is in work.
    """
    studio.engine.wait()
    with studio.remaking:
        return _reroll(studio, id, section, seed)


def _reroll(studio: Studio, id: str, section: int, seed: int | None) -> Job:
    with studio.store.change():  # what is to be is kept first: after a kill here the job is as it was, with other seeds
        job = studio.store.job(id)
        if job.status == "in_progress":
            raise Refusal("conflict", "this video is in work; pause it first")
        seeds = _reseeded(studio, job, section, seed)
        job = job.but(status="paused", seeds=seeds, revision=job.revision + 1, completed_at=None, error=None)
        studio.store.put(job)
        _replan(studio, job)
    _forget(studio, job, section)
    with studio.store.change():
        studio.resync(id)
        job = moved(studio.store.job(id), "remake", rank=studio.store.rank("last"), lost=0)
        studio.store.put(job, tell=True)
    return job


def _reseeded(studio: Studio, job: Job, section: int, seed: int | None) -> dict[int, int]:
    sections = len(studio.store.parts(job.id))
    if not 0 <= section < sections:
        raise Refusal("invalid_request", f"section {section} does not exist; there are 0 to {sections - 1}", "section")
    kept = {index: old for index, old in job.seeds.items() if index < section}
    chosen = randbits(SEED_BITS) if seed is None else seed
    return kept | dict.fromkeys(range(section, sections), chosen)


def _replan(studio: Studio, job: Job) -> None:
    """Writes what was told later into the plan."""
    plan = studio.store.plan(job.id)
    if plan is None:
        return
    sections = []
    for section in plan["sections"]:
        index = section["index"]
        prompt, seed = job.prompts.get(index, section["prompt"]), job.seeds.get(index, section["seed"])
        sections.append({**section, "prompt": prompt, "seed": seed})
    studio.store.put_plan(job.id, {**plan, "sections": sections})


def _forget(studio: Studio, job: Job, section: int) -> None:
    """Removes the files of sections that are to be made again."""
    from longtake.pipeline import Run

    folder = studio.folders.of(job.id)
    studio.folders.forget_results(job.id)
    if (folder / "config.json").is_file():
        try:
            run = Run.open(folder)
            seeds = {index: seed for index, seed in job.seeds.items() if index >= section}
            run.forget_from(section, seeds).video.unlink(missing_ok=True)
        except LongtakeError as error:
            raise Refusal("conflict", studio.scrubbed(sentence(str(error)))) from None


def branch(studio: Studio, id: str, section: int, seed: int | None, prompt: str | None) -> Job:
    """A new job that shares the sections before one with another job. It blocks.

    Raises:
        Refusal: there is no such section, or those before it are not made yet.
    """
    studio.engine.wait()
    with studio.remaking:
        return _branch(studio, id, section, seed, prompt)


def _branch(studio: Studio, id: str, section: int, seed: int | None, prompt: str | None) -> Job:
    told = {} if prompt is None else {"prompt": _untimed(prompt, "prompt")}
    old, parts = studio.store.job(id), studio.store.parts(id)
    seeds = _reseeded(studio, old, section, seed) if seed is not None or prompt is None else dict(old.seeds)
    waiting = [part.index for part in parts[:section] if part.state != "done"]
    if not 0 <= section < len(parts):
        raise Refusal(
            "invalid_request", f"section {section} does not exist; there are 0 to {len(parts) - 1}", "section"
        )
    if waiting:
        raise Refusal("not_ready", f"section {waiting[0]} is not made yet; a branch from there would do", "section")
    prompts = {index: text for index, text in old.prompts.items() if index < section or not told}
    prompts |= dict.fromkeys(range(section, len(parts)), told["prompt"]) if told else {}
    new = Job(
        id=f"video_{token_hex(12)}", created_at=now(), kind=old.kind, model=old.model, asked=old.asked,
        inputs=old.inputs, seconds=old.seconds, size=old.size, kin=old.kin, remixed_from=old.id, prompts=prompts,
        seeds=seeds, revision=old.revision + 1, codec=old.codec, unread=old.unread, remarks=old.remarks,
    )  # fmt: skip
    studio.folders.copy(old.id, new.id)
    try:
        _forget(studio, new, section)
        with studio.store.change():
            new = new.but(rank=studio.store.rank("last"))
            studio.store.add(new, studio.store.plan(old.id))
            studio.store.put_parts(new.id, [p if p.index < section else settled(p, False) for p in parts], anew=True)
            studio.resync(new.id)
            new = studio.store.job(new.id)
            studio.store.tell_job(new)
            _replan(studio, new)
    except BaseException:
        studio.folders.remove(new.id)
        raise
    return new


def retell(studio: Studio, id: str, prompts: Mapping[int, str]) -> Job:
    """Tells sections that are not made yet something else.

    Raises:
        Refusal: one is made already, or there is no such section.
    """
    with studio.store.change():
        job = studio.store.job(id)
        parts = {part.index: part for part in studio.store.parts(id)}
        for index in prompts:
            if index not in parts:
                raise Refusal(
                    "invalid_request", f"section {index} does not exist; there are 0 to {len(parts) - 1}", "prompts"
                )
            if parts[index].state == "done":
                raise Refusal("conflict", f"section {index} is made already; reroll or branch makes it anew", "prompts")
        told = {index: _untimed(text, "prompts") for index, text in prompts.items()}
        job = job.but(prompts={**job.prompts, **told}, revision=job.revision + 1)
        studio.store.put(job, tell=True)
        _replan(studio, job)
        return job


def _untimed(text: str, param: str) -> str:
    try:
        board = read_prompt(text)
    except StoryboardError as error:
        raise Refusal("invalid_request", sentence(str(error)), param) from None
    if board.timed:
        raise Refusal("invalid_request", "what a section is told has no times in it; words alone would do", param)
    return text


def edit(studio: Studio, id: str, wanted: Wanted) -> Job:
    """Asks something else of a job that waits and has nothing made. It blocks.

    Raises:
        Refusal: it is begun, or what is asked cannot be served.
    """
    job = studio.store.job(id)
    _check_unbegun(studio, job)
    if wanted.kind != job.kind:
        raise Refusal("invalid_request", f"this job is to {job.kind}; a new one can do something else", "request")
    checked = studio.checked(replace(wanted, fields={**job.asked, **wanted.fields}))
    with studio.store.change():
        job = studio.store.job(id)
        _check_unbegun(studio, job)
        changed = studio.blank_job(job.kind, checked)
        keys = ("model", "asked", "seconds", "size", "kin", "inputs")
        job = job.but(**{key: getattr(changed, key) for key in keys}, prompts={}, seeds={}, revision=job.revision + 1)
        studio.link_inputs(job)
        studio.store.put(job)
        studio.store.put_parts(id, parts_of(checked), anew=True)
        studio.store.put_plan(id, checked.plan)
        studio.store.tell_job(job)
    return job


def _check_unbegun(studio: Studio, job: Job) -> None:
    if job.status != "queued" or studio.folders.has(job.id, "config.json"):
        raise Refusal(
            "conflict", "only a video that waits and is not begun can be asked otherwise; branch makes a new one"
        )
