"""Files of others: what is taken in, and what is refused before it costs anything."""

import base64
import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playing import png, serving

from longtake.media import write_segment


def bomb(width, height):
    """A PNG of a few bytes that says it has that many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def movie(tmp_path, images=20, fps=12.0):
    path = tmp_path / "movie.mp4"
    write_segment(np.zeros((images, 32, 48, 3), np.uint8), path, 0, fps)
    return path.read_bytes()


def send(server, content, name="a"):
    return server.post("/v1/uploads", files={"file": (name, content)})


def test_an_image_is_kept_as_its_pixels_and_nothing_else(server):
    info, packed = PngInfo(), io.BytesIO()
    info.add_text("Comment", "the secret of its sender")
    Image.new("RGB", (30, 20), (1, 2, 3)).save(packed, "PNG", pnginfo=info)
    about = send(server, packed.getvalue(), "../../secret name.png").json()
    assert (about["kind"], about["width"], about["height"], about["images"]) == ("image", 30, 20, 1)
    answer = server.get(f"/v1/uploads/{about['id']}")
    assert answer.headers["content-type"] == "image/png"
    assert b"secret" not in answer.content
    assert Image.open(io.BytesIO(answer.content)).getpixel((0, 0)) == (1, 2, 3)
    assert [path.name for path in (server.studio.settings.home / "uploads").iterdir()] == [about["id"]]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_images_of_many_kinds_become_png(server, kind):
    packed = io.BytesIO()
    Image.new("RGB", (24, 16), (9, 9, 9)).save(packed, kind)
    id = send(server, packed.getvalue()).json()["id"]
    assert server.get(f"/v1/uploads/{id}").content[:4] == b"\x89PNG"


def test_a_video_is_told_by_its_length(server, tmp_path):
    about = send(server, movie(tmp_path)).json()
    assert (about["kind"], about["width"], about["height"], about["images"]) == ("video", 48, 32, 20)
    assert about["seconds"] == pytest.approx(20 / 12, abs=0.01)
    assert server.get(f"/v1/uploads/{about['id']}").headers["content-type"] == "video/mp4"


@pytest.mark.parametrize("content", [b"", b"hello", b"<svg/>", b"\x89PNG\r\n\x1a\nbroken", png()[:60]])
def test_what_is_no_picture_is_refused(server, content):
    answer = send(server, content)
    assert (answer.status_code, server.error(answer)["code"]) == (415, "unsupported_media")
    assert "PNG" in server.error(answer)["message"]


def test_a_picture_that_says_it_is_huge_is_not_decoded(server):
    answer = send(server, bomb(30_000, 30_000))
    assert (answer.status_code, server.error(answer)["code"]) == (413, "too_large")
    assert "64 megapixels" in server.error(answer)["message"]


def test_half_a_video_is_refused(server, tmp_path):
    answer = send(server, movie(tmp_path)[:400])
    assert (answer.status_code, server.error(answer)["code"]) == (415, "unsupported_media")


def test_sizes_and_lengths_have_limits(settings, tmp_path):
    noisy, packed = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8), io.BytesIO()
    Image.fromarray(noisy).save(packed, "PNG")
    limits = replace(settings.limits, image_bytes=100_000, video_seconds=1.0)
    with serving(replace(settings, limits=limits)) as server:
        assert server.error(send(server, packed.getvalue()))["code"] == "too_large"
        assert "minutes" in server.error(send(server, movie(tmp_path)))["message"]
        assert send(server, movie(tmp_path, images=6)).status_code == 200
    limits = replace(settings.limits, image_bytes=2000, video_bytes=2000, body_bytes=1000, video_pixels=100)
    with serving(replace(settings, limits=limits)) as server:
        answer = send(server, b"x" * 5000)
        assert (answer.status_code, server.error(answer)["code"]) == (413, "too_large")
        streamed = server.post(
            "/v1/plan", content=(b" " * 600 for _ in range(3)), headers={"content-type": "application/json"}
        )
        assert (streamed.status_code, server.error(streamed)["code"]) == (413, "too_large")
        assert server.error(send(server, movie(tmp_path, images=2)))["code"] == "too_large"


def test_a_refused_file_leaves_nothing_behind(server):
    send(server, b"hello")
    send(server, bomb(30_000, 30_000))
    assert list((server.studio.settings.home / "uploads").iterdir()) == []


def test_a_form_without_its_file_is_refused(server):
    assert server.error(server.post("/v1/uploads", files={"other": ("a", b"x")}))["param"] == "file"
    assert server.post("/v1/uploads", json={"file": "x"}).status_code == 415
    assert server.get("/v1/uploads/upload_000000000000000000000000").status_code == 404
    broken = server.post("/v1/uploads", content=b"junk", headers={"content-type": "multipart/form-data; boundary=x"})
    assert 400 <= broken.status_code < 500
    assert server.error(broken)


def test_a_start_image_can_stand_in_the_request_itself(server):
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    answer = server.post("/v1/videos", json={"prompt": "a red ball", "input_reference": {"image_url": url}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["longtake"]["request"]["image"].startswith("upload_")
    for wrong in (
        "https://example.com/a.png",
        "data:image/png;base64,@@@",
        "data:text/plain,hello",
        "file:" + "//" + "/etc/passwd",
    ):
        refused = server.post("/v1/videos", json={"prompt": "x", "input_reference": {"image_url": wrong}})
        assert refused.status_code in (415, 422), wrong
        assert server.error(refused)["param"] in ("input_reference", "file")


def test_an_upload_outlives_neither_more_nor_less_than_its_video_needs(server):
    """The job has its own link to the file."""
    id = server.create()
    upload = server.video(id)["longtake"]["request"]["image"]
    (server.studio.settings.home / "uploads" / upload).unlink()
    assert server.get(f"/v1/videos/{id}/source").status_code == 200
    assert server.get(f"/v1/uploads/{upload}").status_code == 404


def test_an_image_cannot_stand_where_a_video_belongs(server, tmp_path):
    image, video = server.upload(), send(server, movie(tmp_path)).json()["id"]
    wrong = server.post("/v1/videos", json={"prompt": "x", "input_reference": video})
    assert "is no image" in server.error(wrong)["message"]
    wrong = server.post("/v1/videos/extensions", json={"prompt": "x", "video": image})
    assert "is no video" in server.error(wrong)["message"]
    form = server.post("/v1/videos/extensions", data={"prompt": "x"}, files={"video": ("a.mp4", png())})
    assert form.status_code == 415


def test_old_uploads_that_no_video_was_asked_for_with_are_let_go(settings):
    with serving(replace(settings, limits=replace(settings.limits, unused_days=1.0))) as server:
        unused, used = server.upload(), server.upload()
        server.post("/v1/videos", json={"prompt": "a red ball", "input_reference": used})
        assert server.studio.uploads.tidy() == 0
    with serving(replace(settings, limits=replace(settings.limits, unused_days=-1.0))) as server:
        server.studio.uploads.tidy()  # unless the server has done it by itself
        assert server.get(f"/v1/uploads/{unused}").status_code == 404
        assert server.get(f"/v1/uploads/{used}").status_code == 200
        assert [path.name for path in (settings.home / "uploads").iterdir()] == [used]
