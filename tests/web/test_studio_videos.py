"""Videos over HTTP: asked for, made by a worker, fetched, made otherwise."""

import io
import threading
import zipfile

import av
import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image
from playing import Played, leaks, png

from longtake.media import write_segment

VARIANTS = {"thumbnail": "WEBP", "spritesheet": "WEBP", "gif": "GIF"}


@pytest.fixture
def made(server, worker):
    """The id of a finished video."""
    id = server.create()
    worker.all()
    return id


def test_a_video_goes_from_the_queue_to_its_end(server, worker):
    id = server.create("a red ball", longtake={"steps": 2})
    waiting = server.video(id)
    assert (waiting["status"], waiting["longtake"]["position"], waiting["progress"]) == ("queued", 0, 0)
    assert (waiting["seconds"], waiting["size"], waiting["model"]) == ("6.0", "48x32", "tiny")
    given = worker.ask()
    assert given["request"]["image"].startswith("inputs/upload_")
    assert server.get(f"/v1/worker/leases/{worker.lease}/files/{given['request']['image']}").content[:4] == b"\x89PNG"
    worker.begin()
    worker.make(0)
    half = server.video(id)
    assert (half["status"], half["progress"], half["longtake"]["images_done"]) == ("in_progress", 50, 37)
    assert [section["state"] for section in half["longtake"]["sections"]] == ["done", "empty"]
    assert half["longtake"]["codec"].startswith('video/mp4; codecs="avc1.')
    assert half["longtake"]["sections"][0]["meter"]["motion"] >= 0
    worker.make(1)
    end = worker.finish()
    assert (end["status"], end["progress"], end["longtake"]["peak_memory_mb"]) == ("completed", 100, 123)
    content = server.get(f"/v1/videos/{id}/content")
    assert content.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(content.content)) as container:
        assert sum(1 for _ in container.decode(video=0)) == end["longtake"]["plan"]["images"] == 73


def test_a_part_of_a_file_can_be_asked_for(server, made):
    whole = server.get(f"/v1/videos/{made}/content").content
    part = server.get(f"/v1/videos/{made}/content", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_finished_video_has_pictures(server, made, variant):
    answer = server.get(f"/v1/videos/{made}/content", params={"variant": variant})
    assert Image.open(io.BytesIO(answer.content)).format == VARIANTS[variant]
    again = server.get(f"/v1/videos/{made}/content", params={"variant": variant})
    assert (again.content, again.headers["etag"]) == (answer.content, answer.headers["etag"])


def test_every_image_of_a_video_can_be_had_as_png(server, made):
    answer = server.get(f"/v1/videos/{made}/content?variant=frames")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 73
        assert archive.read("000000.png")[:4] == b"\x89PNG"


def test_what_is_there_of_a_video_can_be_seen_before_its_end(server, worker):
    id = server.create()
    assert server.error(server.get(f"/v1/videos/{id}/content"))["code"] == "not_ready"
    assert server.error(server.get(f"/v1/videos/{id}/content?partial=1"))["code"] == "not_ready"
    worker.ask()
    worker.begin()
    worker.make(0)
    for variant in ("video", "thumbnail"):
        assert server.get(f"/v1/videos/{id}/content?partial=1&variant={variant}").status_code == 200
    with av.open(io.BytesIO(server.get(f"/v1/videos/{id}/content?partial=1").content)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 37


def test_a_section_is_a_fragmented_mp4_from_time_0(server, made, worker):
    answer = server.get(f"/v1/videos/{made}/sections/1", params={"v": 0})
    assert answer.content == (worker.run.folder / "segments/0001.mp4").read_bytes()
    assert b"moof" in answer.content
    assert "immutable" in answer.headers["cache-control"]
    end = server.get(f"/v1/videos/{made}/sections/1/last.png")
    assert Image.open(io.BytesIO(end.content)).size == (48, 32)
    assert server.get(f"/v1/videos/{made}/sections/7").status_code == 404
    assert server.get(f"/v1/videos/{made}/sections/-1").status_code == 404


def test_the_start_image_is_there_from_the_beginning(server, worker):
    id = server.create()
    assert Image.open(io.BytesIO(server.get(f"/v1/videos/{id}/source").content)).size == (96, 64)
    worker.all()
    assert Image.open(io.BytesIO(server.get(f"/v1/videos/{id}/source").content)).size == (48, 32)


def test_the_list_has_pages_in_both_orders(server):
    ids = [server.create(f"video {number}") for number in range(5)]
    first = server.get("/v1/videos?limit=2").json()
    assert [video["id"] for video in first["data"]] == ids[:2:-1]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, ids[4], ids[3])
    assert all(video["longtake"]["plan"] is None for video in first["data"])
    seen, after = [], None
    while True:
        page = server.get(
            "/v1/videos", params={"limit": 2, "order": "asc", **({"after": after} if after else {})}
        ).json()
        seen += [video["id"] for video in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert seen == ids


def test_videos_are_found_by_words_and_status(server):
    ball, box = server.create("A red BALL [3s: it turns]"), server.create("a blue box 100%")
    found = lambda **query: [video["id"] for video in server.get("/v1/videos", params=query).json()["data"]]  # noqa: E731
    assert found(q="ball red") == [ball]
    assert found(q="turns") == [ball]
    assert found(q="%") == [box]
    assert found(q="green") == []
    server.post(f"/v1/videos/{box}/pause")
    assert found(status="paused") == [box]


def test_the_queue_can_be_put_in_another_order(server):
    a, b, c = (server.create(name) for name in "abc")
    positions = lambda: [server.video(id)["longtake"]["position"] for id in (a, b, c)]  # noqa: E731
    assert positions() == [0, 1, 2]
    assert server.post(f"/v1/videos/{c}/move", json={"before": a}).json()["longtake"]["position"] == 0
    assert positions() == [1, 2, 0]
    server.post(f"/v1/videos/{c}/move", json={"before": None})
    assert positions() == [0, 1, 2]
    server.post(f"/v1/videos/{a}/move", json={"before": a})
    assert positions() == [0, 1, 2]
    server.post(f"/v1/videos/{b}/cancel")
    assert positions() == [0, None, 1]
    assert server.error(server.post(f"/v1/videos/{a}/move", json={"before": b}))["param"] == "before"
    assert server.error(server.post(f"/v1/videos/{b}/move", json={"before": a}))["code"] == "conflict"


def test_a_waiting_video_can_be_paused_cancelled_and_resumed(server):
    id = server.create()
    assert server.post(f"/v1/videos/{id}/pause").json()["status"] == "paused"
    assert server.post(f"/v1/videos/{id}/pause").json()["status"] == "paused"
    assert server.error(server.post(f"/v1/videos/{id}/stop"))["code"] == "conflict"
    assert server.post(f"/v1/videos/{id}/resume").json()["status"] == "queued"
    assert server.post(f"/v1/videos/{id}/resume").json()["status"] == "queued"
    cancelled = server.post(f"/v1/videos/{id}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["completed_at"]
    assert server.post(f"/v1/videos/{id}/resume").json()["completed_at"] is None


@pytest.mark.parametrize(("call", "order", "status"), [("pause", "pause", "paused"), ("cancel", "cancel", "cancelled")])
def test_a_video_in_work_is_stopped_by_its_worker(server, worker, call, order, status):
    id = server.create()
    worker.ask()
    assert worker.say().json()["order"] == "go"
    stopping = server.post(f"/v1/videos/{id}/{call}").json()
    assert (stopping["status"], stopping["longtake"]["stopping"]) == ("in_progress", call)
    assert worker.say().json()["order"] == order
    worker.end(status)
    ended = server.video(id)
    assert (ended["status"], ended["longtake"]["stopping"], ended["longtake"]["worker"]) == (status, None, None)


def test_a_wish_to_pause_can_be_taken_back(server, worker):
    id = server.create()
    worker.ask()
    server.post(f"/v1/videos/{id}/pause")
    server.post(f"/v1/videos/{id}/resume")
    assert worker.say().json()["order"] == "go"


def test_a_stopped_video_is_complete_and_can_go_on(server, worker):
    id = server.create()
    worker.ask()
    worker.begin()
    server.post(f"/v1/videos/{id}/stop")
    assert worker.make(0)["order"] == "stop"
    assert worker.finish()["progress"] == 50
    assert server.post(f"/v1/videos/{id}/resume").json()["status"] == "queued"
    given = worker.ask()
    assert "sections/0000.safetensors" in [file["name"] for file in given["files"]]
    worker.make(1)
    worker.finish()
    assert server.video(id)["progress"] == 100
    assert server.error(server.post(f"/v1/videos/{id}/resume"))["code"] == "conflict"


def test_a_failed_video_says_why_without_folders_and_can_be_resumed(server, worker):
    id = server.create()
    worker.ask()
    error = {"code": "output", "message": "/home/eva/secret/run/a.png: the disk is full", "param": None}
    failed = worker.end("failed", error=error).json()
    assert failed["error"] == {"code": "output", "message": "a.png: the disk is full", "param": None}
    again = server.post(f"/v1/videos/{id}/resume").json()
    assert (again["status"], again["error"]) == ("queued", None)


def test_a_reroll_makes_a_section_and_all_after_it_again(server, made, worker):
    before = server.video(made)
    server.get(f"/v1/videos/{made}/content?variant=thumbnail")
    again = server.post(f"/v1/videos/{made}/reroll", json={"section": 1, "seed": 77}).json()
    assert (again["status"], again["progress"], again["longtake"]["images_done"]) == ("queued", 50, 37)
    assert [section["state"] for section in again["longtake"]["sections"]] == ["done", "empty"]
    assert [section["seed"] for section in again["longtake"]["plan"]["sections"]] == [0, 77]
    assert again["longtake"]["revision"] == before["longtake"]["revision"] + 1
    given = worker.ask()
    names = [file["name"] for file in given["files"]]
    assert "sections/0000.safetensors" in names
    assert "sections/0001.safetensors" not in names
    assert given["overrides"]["seeds"] == {"1": 77}
    config = server.get(f"/v1/worker/leases/{worker.lease}/files/config.json").json()
    assert config["seeds"] == {"1": 77}
    assert server.error(server.get(f"/v1/videos/{made}/content"))["code"] == "not_ready"


def test_a_reroll_chooses_a_new_seed_if_none_is_given(server, made):
    again = server.post(f"/v1/videos/{made}/reroll", json={"section": 0}).json()
    seeds = {section["seed"] for section in again["longtake"]["plan"]["sections"]}
    assert len(seeds) == 1
    assert seeds != {0}
    refused = server.post(f"/v1/videos/{made}/reroll", json={"section": 2})
    assert server.error(refused)["param"] == "section"


def test_a_video_in_work_is_not_rerolled(server, worker):
    id = server.create()
    worker.ask()
    assert server.error(server.post(f"/v1/videos/{id}/reroll", json={"section": 0}))["code"] == "conflict"


def test_a_branch_shares_what_was_made_before(server, made, worker):
    body = {"section": 1, "seed": 5, "prompt": "the ball turns left"}
    branch = server.post(f"/v1/videos/{made}/branch", json=body).json()
    assert (branch["status"], branch["remixed_from_video_id"]) == ("queued", made)
    assert [section["state"] for section in branch["longtake"]["sections"]] == ["done", "empty"]
    assert branch["longtake"]["plan"]["sections"][1]["prompt"] == "the ball turns left"
    given = worker.ask()
    assert given["video"]["id"] == branch["id"]
    assert given["overrides"] == {"prompts": {"1": "the ball turns left"}, "seeds": {"1": 5}}
    names = [file["name"] for file in given["files"]]
    assert "sections/0000.safetensors" in names
    assert "sections/0001.safetensors" not in names
    original = server.video(made)
    assert (original["status"], original["progress"]) == ("completed", 100)
    assert server.get(f"/v1/videos/{made}/sections/1").status_code == 200
    assert server.delete(f"/v1/videos/{made}").status_code == 200
    assert server.get(f"/v1/videos/{branch['id']}/sections/0").status_code == 200


def test_a_branch_from_what_is_not_made_is_refused(server):
    id = server.create()
    assert server.error(server.post(f"/v1/videos/{id}/branch", json={"section": 1}))["code"] == "not_ready"
    assert server.error(server.post(f"/v1/videos/{id}/branch", json={"section": 9}))["code"] == "invalid_request"
    timed = server.post(f"/v1/videos/{id}/branch", json={"section": 0, "prompt": "[3s: it turns]"})
    assert server.error(timed)["param"] == "prompt"


def test_sections_that_are_not_made_can_be_told_something_else(server, worker):
    id = server.create()
    worker.ask()
    worker.begin()
    worker.make(0)
    told = server.patch(f"/v1/videos/{id}", json={"prompts": {"1": "the box turns"}}).json()
    assert told["longtake"]["plan"]["sections"][1]["prompt"] == "the box turns"
    heard = worker.say().json()
    assert (heard["revision"], heard["prompts"]) == (told["longtake"]["revision"], {"1": "the box turns"})
    for prompts, code in (
        ({"0": "too late"}, "conflict"),
        ({"9": "nowhere"}, "invalid_request"),
        ({"1": "[0s image=a.png]"}, "invalid_request"),
    ):
        assert server.error(server.patch(f"/v1/videos/{id}", json={"prompts": prompts}))["code"] == code


def test_a_waiting_video_can_be_asked_otherwise(server, worker):
    id = server.create("a red ball")
    changed = server.patch(f"/v1/videos/{id}", json={"request": {"prompt": "a blue box", "seconds": 9}}).json()
    assert (changed["prompt"], changed["seconds"], len(changed["longtake"]["sections"])) == ("a blue box", "9.0", 3)
    assert changed["longtake"]["request"]["image"].startswith("upload_")
    refused = server.patch(f"/v1/videos/{id}", json={"request": {"prompt": "x", "num_inference_steps": 0}})
    assert server.error(refused)["param"] == "num_inference_steps"
    worker.ask()
    assert server.error(server.patch(f"/v1/videos/{id}", json={"request": {"prompt": "late"}}))["code"] == "conflict"


def test_a_deleted_video_is_gone_and_its_worker_loses_it(server, worker):
    id = server.create()
    worker.ask()
    assert server.delete(f"/v1/videos/{id}").json() == {"id": id, "object": "video.deleted", "deleted": True}
    assert server.get(f"/v1/videos/{id}").status_code == 404
    assert server.error(worker.say())["code"] == "lease_lost"
    assert server.error(worker.put("sections/0000.safetensors", b"x"))["code"] == "lease_lost"
    assert not (server.studio.settings.home / "jobs" / id).exists()
    assert server.get("/v1/videos").json()["data"] == []


def test_a_call_can_wait_for_the_video(server, worker):
    answers = []
    body = {"prompt": "a red ball", "input_reference": server.upload(), "seconds": 6}
    caller = threading.Thread(target=lambda: answers.append(server.post("/v1/videos/sync", json=body)))
    caller.start()
    answer = server.post("/v1/worker/lease", json={"worker": "played", "wait": 20})
    worker.lease = answer.json()["lease"]
    worker.begin()
    worker.make(0)
    worker.make(1)
    worker.finish()
    caller.join(30)
    assert answers[0].status_code == 200
    assert answers[0].content == (worker.run.folder.parent / "video.mp4").read_bytes()


def test_a_call_that_waits_for_a_video_that_fails_is_told_why(server, worker):
    answers = []
    body = {"prompt": "a red ball", "input_reference": server.upload(), "seconds": 6}
    caller = threading.Thread(target=lambda: answers.append(server.post("/v1/videos/sync", json=body)))
    caller.start()
    worker.lease = server.post("/v1/worker/lease", json={"worker": "played", "wait": 20}).json()["lease"]
    worker.end("failed", error={"code": "numerics", "message": "not finite"})
    caller.join(30)
    assert "not finite" in server.error(answers[0])["message"]


def test_whoever_leaves_does_not_leave_a_video_in_the_queue(server):
    body = {"prompt": "a red ball", "input_reference": server.upload(), "seconds": 6}
    with pytest.raises(httpx.ReadTimeout):
        server.post("/v1/videos/sync", json=body, timeout=httpx.Timeout(60, read=1))
    seen = server.events("/v1/events", after=0, until=lambda seen: seen[-1][2].get("status") == "cancelled")
    assert seen


def test_what_a_browser_has_already_is_not_sent_again(server, made):
    for path in ("content", "content?variant=thumbnail", "source", "sections/0", "sections/0/last.png"):
        first = server.get(f"/v1/videos/{made}/{path}")
        again = server.get(f"/v1/videos/{made}/{path}", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path


def test_a_plan_says_how_long_it_will_take_once_something_like_it_was_made(server, worker):
    assert server.post("/v1/plan", json={"prompt": "x"}).json()["estimate_seconds"] is None
    server.create()
    worker.all()
    plan = server.post("/v1/plan", json={"prompt": "x", "seconds": 12, "num_inference_steps": 4}).json()
    assert plan["estimate_seconds"] == pytest.approx(1.5 / 2 * 4 * 4)


def test_a_place_between_two_others_can_be_taken_again_and_again(server):
    a, b, c = (server.create(name) for name in "abc")
    for moved in [b, c] * 40:
        server.post(f"/v1/videos/{moved}/move", json={"before": a if moved == c else c})
    order = sorted((a, b, c), key=lambda id: server.video(id)["longtake"]["position"])
    assert order[-1] == a
    assert server.studio.store.queue() == order
    for moved in [b, c] * 40:  # always right before a, where the room is halved each time
        server.post(f"/v1/videos/{moved}/move", json={"before": a})
    assert server.studio.store.queue() == [b, c, a]


def test_a_finished_video_can_be_made_longer(server, made, worker):
    answer = server.post("/v1/videos/extensions", json={"video": {"id": made}, "prompt": "it turns", "seconds": 3})
    assert answer.status_code == 200, answer.text
    longer = answer.json()
    plan = longer["longtake"]["plan"]
    assert (longer["longtake"]["kind"], plan["first_images"], plan["images"]) == ("extend", 73, 109)
    given = worker.ask()
    assert given["request"]["video"].startswith("inputs/upload_")
    assert given["request"]["video"].endswith(".mp4")
    assert server.get(f"/v1/videos/{longer['id']}/source").content[:4] == b"\x89PNG"
    waiting = server.create()
    refused = server.post("/v1/videos/extensions", json={"video": {"id": waiting}, "prompt": "x"})
    assert server.error(refused)["code"] == "not_ready"


def test_the_settings_of_a_video_of_ours_can_be_taken_from_it(server, made, tiny_run):
    content = server.get(f"/v1/videos/{made}/content").content
    answer = server.post("/v1/restore", files={"video": ("a.mp4", content)})
    found = answer.json()
    assert found["request"]["prompt"] == "a red ball"
    assert found["request"]["seconds"] == 6
    assert not {"image", "parts", "loras"} & set(found["request"])
    assert server.get(f"/v1/uploads/{found['image']}").content[:4] == b"\x89PNG"
    assert not leaks(answer.text, tiny_run.folder.parent, server.studio.settings.home)
    foreign = (tiny_run.folder / "segments/0000.mp4").read_bytes()
    assert server.error(server.post("/v1/restore", files={"video": ("a.mp4", foreign)}))["param"] == "video"
    assert server.post("/v1/restore", files={"video": ("a.png", png())}).status_code == 415


def test_no_answer_names_a_folder_of_this_machine(server, worker, tmp_path, tiny_backbone_folder):
    """Everything a page can fetch, of a video that was made, and every refusal that the engine words."""
    id = server.create()
    worker.all()
    texts = [
        server.get(path).text for path in ("/health", "/v1/models", "/v1/videos", f"/v1/videos/{id}", "/openapi.json")
    ]
    texts += [
        server.post("/v1/plan", json=body).text
        for body in (
            {"height": 33}, {"order": "x"}, {"schedule": "zz"}, {"model": "none"}, {"prompt": "[9s image=/etc/passwd]"},
            {"longtake": {"cache": "x"}}, {"longtake": {"codebook": {"k9": 3}}}, {"longtake": {"compat": "official"}},
            {"seconds": 3, "prompt": "a [90s: far]"}, {"num_frames": 9, "seconds": 2}, {"guidance_scale": 4},
        )
    ]  # fmt: skip
    texts.append(
        str(server.events(f"/v1/videos/{id}/events", until=lambda seen: seen[-1][2].get("status") == "completed"))
    )
    assert not [text for text in texts if leaks(text, tmp_path, tiny_backbone_folder.parent, worker.run.folder)]


def test_two_workers_never_have_the_same_video(server, tiny_run):
    ids = {server.create(name) for name in "abcd"}
    workers = [Played(server, tiny_run, f"w{number}") for number in range(8)]
    threads = [threading.Thread(target=worker.ask) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    leases = [worker.lease for worker in workers if worker.lease]
    assert len(set(leases)) == len(ids) == 4


def test_a_longer_video_shows_what_it_was_made_from(server, made, worker, tmp_path):
    """The source is in files of 64 images; together they are the piece at place -1, and the beginning of the video."""
    body = {"video": {"id": made}, "prompt": "it turns", "seconds": 3}
    id = server.post("/v1/videos/extensions", json=body).json()["id"]
    worker.ask()
    for name, images in (("source/0000.mp4", 64), ("source/0001.mp4", 9), ("segments/0000.mp4", 36)):
        path = tmp_path / name.replace("/", "-")
        write_segment(np.zeros((images, 32, 48, 3), np.uint8), path, 0, 12.0)
        assert worker.put(name, path.read_bytes()).status_code == 204
    assert server.video(id)["longtake"]["plan"]["first_images"] == 73

    def shown(path):
        with av.open(io.BytesIO(server.get(f"/v1/videos/{id}/{path}").content)) as container:
            pictures = list(container.decode(video=0))
        assert [round(picture.time * 12) for picture in pictures] == list(range(len(pictures)))
        return len(pictures)

    assert shown("sections/-1") == 73
    assert shown("content?partial=1") == 109
    assert server.studio.images_done(id) == 109
