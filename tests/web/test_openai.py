"""OpenAI's own client makes a video here: what it sends is understood, and what it is sent it can read."""

import threading

import openai
import pytest
from playing import png

# Their own service ends; the shape of the calls stays with those who serve it.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_s_client_creates_polls_and_downloads(server, worker, client):
    created = client.videos.create(
        prompt="a red ball", model="tiny", seconds="6", size="48x32", input_reference=("a.png", png(), "image/png"),
        extra_body={"seed": 3, "longtake": {"crf": 20}},
    )  # fmt: skip
    assert (created.status, created.object, created.seconds, created.size) == ("queued", "video", "6.0", "48x32")
    asked = server.video(created.id)["longtake"]["request"]
    assert (int(asked["seed"]), int(asked["crf"])) == (3, 20)
    working = threading.Thread(target=worker.all)
    working.start()
    done = client.videos.poll(created.id, poll_interval_ms=50)
    working.join(30)
    assert (done.status, done.progress) == ("completed", 100)
    assert client.videos.download_content(done.id).read() == (worker.run.folder.parent / "video.mp4").read_bytes()
    assert client.videos.download_content(done.id, variant="thumbnail").read()[:4] == b"RIFF"
    assert [video.id for video in client.videos.list(limit=1)] == [done.id]
    assert client.videos.delete(done.id).deleted


def test_openai_s_client_reads_our_list_page_by_page(server, client):
    ids = [server.create(name) for name in "abc"]
    assert [video.id for video in client.videos.list(limit=1, order="asc")] == ids


def test_openai_s_client_raises_what_we_refuse(server, client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.videos.retrieve("video_none")
    assert missing.value.code == "not_found"
    with pytest.raises(openai.UnprocessableEntityError, match="there are tiny") as refused:
        client.videos.create(prompt="x", model="sora-2", input_reference=("a.png", png(), "image/png"))
    assert refused.value.param == "model"
    with pytest.raises(openai.ConflictError):
        client.videos.download_content(server.create())


def test_openai_s_client_lists_the_models(server, client):
    assert [(model.id, model.owned_by) for model in client.models.list()] == [("tiny", "longtake")]
