"""What is asked over HTTP, in the words of others, becomes what longtake can be asked; and every refusal says why."""

import json

import pytest
import torch
from playing import png, serving
from safetensors.torch import save_file

from longtake.web.schema import Create, Extend, read, wanted
from longtake.web.settings import Settings

UPLOAD = "upload_" + "0" * 24


def fields(**body):
    return wanted(read(Create, body), lambda reference, param: UPLOAD).fields


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"seconds": "6"}, {"seconds": 6.0}),
        ({"size": "384x256"}, {"width": 384, "height": 256}),
        ({"size": "auto"}, {}),
        ({"num_inference_steps": 5}, {"steps": 5}),
        ({"guidance_scale": 7}, {"distilled_guidance": 7.0}),
        ({"true_cfg_scale": 2}, {"guidance": 2.0}),
        ({"sampling_type": "inverted"}, {"order": "inverted"}),
        ({"input_reference": UPLOAD}, {"image": UPLOAD}),
        ({"longtake": {"crf": 20}, "extra_params": {"scale": 2}}, {"crf": 20, "scale": 2}),
        ({"prompt": "a [3s: b]"}, {"prompt": "a", "storyboard": {"cues": [{"at": 3.0, "prompt": "b"}]}}),
        ({"storyboard": "a ball\n3s seed=4"}, {"prompt": "a ball", "storyboard": {"cues": [{"at": 3.0, "seed": 4}]}}),
        ({"prompt": "[0s image=x][loop]"}, {"image": UPLOAD, "storyboard": {"cues": [], "loop": True}}),
    ],
)  # fmt: skip
def test_words_of_others_have_ours(theirs, ours):
    assert fields(**theirs) == ours


def test_a_longer_video_is_asked_for_by_side():
    found = wanted(read(Extend, {"video": UPLOAD, "side": "before"}), lambda reference, param: UPLOAD)
    assert (found.kind, found.fields) == ("extend", {"video": UPLOAD, "side": "before"})


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"promt": "x"}, "promt", "did you mean prompt?"),
        ({"num_inference_stps": 3}, "num_inference_stps", "did you mean num_inference_steps?"),
        ({"prompt": 3}, "prompt", "prompt"),
        ({"size": "big"}, "size", "384x256"),
        ({"size": "384x256", "width": 300}, "size", "one of them would do"),
        ({"order": "vanilla", "sampling_type": "inverted"}, "order", "one of them would do"),
        ({"seconds": 3, "num_frames": 9}, "num_frames", "one of them would do"),
        ({"seconds": -1}, "seconds", "greater than 0"),
        ({"longtake": {"seed": 4}, "seed": 5}, "longtake.seed", "once would do"),
        ({"longtake": {"image": "/etc/passwd"}}, "longtake", "input_reference"),
        ({"longtake": {"parts": {}}}, "longtake", "model"),
        ({"longtake": {"stepz": 4}}, "longtake.stepz", "did you mean steps?"),
        ({"longtake": {"loras": ["a"]}}, "longtake.loras", "there is no field"),
        ({"longtake": {"crf": 99}}, "crf", "less than or equal to 51"),
        ({"longtake": {"codebook": {"k9": 4}}}, None, "codebook"),
        ({"prompt": "a [3: it rolls]"}, "prompt", "expected s, for seconds"),
        ({"storyboard": {"cues": [{"at": -1, "prompt": "x"}]}}, "storyboard", "0 s or later"),
        ({"storyboard": {"cuez": []}}, "storyboard", "there is no such key"),
        ({"prompt": "a [90s: far away]"}, "storyboard", "would do"),
        ({"prompt": "a [3s image=/etc/passwd]"}, "storyboard", "there is no upload"),
        ({"input_reference": "/etc/passwd"}, "input_reference", "there is no upload"),
        ({"input_reference": {"url": "x"}}, "input_reference", "there is no upload"),
        ({"model": "wan"}, "model", "there are tiny"),
        ({"model": "/etc"}, "model", "there are tiny"),
        ({"fps": 30}, "fps", "12 images a second"),
        ({"width": 50}, "size", "48 and 64"),
        ({"order": "forward"}, "order", "there are"),
        ({"schedule": "f16k4_q2"}, None, "expected"),
        ({"guidance_scale": 4}, None, "was not distilled"),
        ({"longtake": {"cache": "magic"}}, None, "teacache"),
        ([1], None, "JSON object"),
        ("{", None, "no JSON"),
        ("[" * 100_000, None, "no JSON"),
        ('{"prompt": "\\ud800"}', None, "no JSON"),
        ('{"prompt": NaN}', None, "no JSON"),
    ],
)
def test_a_refusal_names_the_field_and_what_would_do(asking, body, param, says):
    kind = {"content-type": "application/json"}
    answer = asking.post("/v1/plan", content=body if isinstance(body, str) else json.dumps(body), headers=kind)
    error = asking.error(answer)
    assert (answer.status_code, error["code"]) == (422, "invalid_request")
    assert says in error["message"]
    assert "\n" not in error["message"]
    if param is not None:
        assert error["param"] == param


@pytest.fixture(scope="module")
def asking(tmp_path_factory, tiny_backbone_folder):
    """One server for all that keeps nothing."""
    with serving(Settings(tmp_path_factory.mktemp("asked"), models={"tiny": str(tiny_backbone_folder)})) as served:
        yield served


def test_a_plan_tells_every_section_in_the_order_of_making(asking):
    plan = asking.post("/v1/plan", json={"prompt": "a ball [2.9s: it rolls]", "seconds": 9, "order": "inverted"}).json()
    assert [section["place"] for section in plan["sections"]] == [2, 1, 0]
    assert [section["images"] for section in plan["sections"]] == [[73, 109], [37, 73], [0, 37]]
    assert plan["sections"][0]["seen"] == [[0, 1]]
    assert plan["sections"][0]["prompt"] == "it rolls"
    assert plan["context_tokens_max"] == max(section["context_tokens"] for section in plan["sections"])
    assert (plan["images"], plan["width"], plan["height"], plan["first_images"]) == (109, 48, 32, 1)
    assert any("2.9 s -> 3 s" in line for line in plan["told"])


def test_a_number_of_images_is_a_length(asking):
    assert asking.post("/v1/plan", json={"num_frames": 109}).json()["images"] == 109


def test_the_last_image_is_the_end_of_the_video(asking):
    last = asking.upload()
    answer = asking.post("/v1/videos", json={"prompt": "x", "input_reference": last, "last_image": last, "seconds": 6})
    assert answer.status_code == 200, answer.text
    cues = answer.json()["longtake"]["request"]["storyboard"]["cues"]
    assert cues == [{"at": 6.0, "image": last}]


def test_a_form_asks_the_same_as_json(asking):
    data = {"prompt": "a ball", "seconds": "6", "seed": "3", "longtake": '{"crf": 20}', "extra_params[scale]": "2"}
    answer = asking.post("/v1/videos", data=data, files={"input_reference": ("a.png", png())})
    assert answer.status_code == 200, answer.text
    asked = answer.json()["longtake"]["request"]
    assert (asked["seed"], asked["crf"], int(asked["scale"])) == (3, 20, 2)
    broken = asking.post(
        "/v1/videos", data={"prompt": "x", "longtake": "{"}, files={"input_reference": ("a.png", png())}
    )
    assert asking.error(broken)["param"] == "longtake"
    assert asking.post("/v1/videos", content=b"x", headers={"content-type": "text/plain"}).status_code == 415


def test_a_start_image_is_asked_for(asking):
    assert asking.error(asking.post("/v1/videos", json={"prompt": "x"}))["param"] == "input_reference"
    assert asking.error(asking.post("/v1/videos/extensions", json={"prompt": "x"}))["param"] == "video"
    both = {"prompt": "x", "video": UPLOAD, "input_reference": UPLOAD}
    assert asking.post("/v1/videos/extensions", json=both).status_code == 422


def test_the_models_say_how_they_want_to_be_used(asking):
    (model,) = asking.get("/v1/models").json()["data"]
    traits = model["longtake"]
    assert (model["id"], traits["present"], traits["default"]) == ("tiny", True, True)
    assert (traits["size"], traits["fps"], traits["section_images"]) == ([48, 32], 12.0, 36)
    assert "ball" in traits["words"]


def test_a_model_that_is_not_here_is_listed_as_absent(tmp_path):
    with serving(Settings(tmp_path, models={"framepack-i2v": "framepack-i2v"})) as server:
        (model,) = server.get("/v1/models").json()["data"]
        assert not model["longtake"]["present"]
        assert len(model["longtake"]["sizes"]) > 1
        assert server.error(server.post("/v1/plan", json={"prompt": "x"}))["param"] == "model"


def test_loras_are_files_of_a_folder_by_name(tmp_path, tiny_backbone_folder):
    (tmp_path / "loras").mkdir()
    for name, layer in (("style", "blocks.0.attn1.to_q"), ("other", "transformer_blocks.0.attn.to_q")):
        halves = {f"{layer}.lora_A.weight": torch.ones(2, 32), f"{layer}.lora_B.weight": torch.ones(32, 2)}
        save_file(halves, tmp_path / "loras" / f"{name}.safetensors")
    settings = Settings(tmp_path / "home", models={"tiny": str(tiny_backbone_folder)}, loras=tmp_path / "loras")
    with serving(settings) as server:
        ask = lambda loras: server.post("/v1/plan", json={"prompt": "x", "longtake": {"loras": loras}})  # noqa: E731
        for loras in ({"style.safetensors": 0.5}, ["style.safetensors:0.5"], [{"file": "style.safetensors"}]):
            assert "2 of 2 tensors have a place" in ask(loras).json()["told"][0]
        assert "there are other.safetensors, style.safetensors" in server.error(ask({"../a.safetensors": 1}))["message"]
        refused = server.error(ask(["other.safetensors"]))
        assert "none of its 2 tensors fits" in refused["message"]
        assert str(tmp_path) not in refused["message"]
        server.create(longtake={"loras": ["style.safetensors:0.5"]})
        lease = server.post("/v1/worker/lease", json={"worker": "w", "wait": 0}).json()
        (leased,) = lease["request"]["loras"]
        assert leased == {"file": f"{tmp_path}/loras/style.safetensors", "weight": 0.5, "network": "both"}


def test_so_many_may_wait_and_no_more(tmp_path, tiny_backbone_folder):
    from dataclasses import replace

    settings = Settings(tmp_path, models={"tiny": str(tiny_backbone_folder)})
    with serving(replace(settings, limits=replace(settings.limits, queued=1))) as server:
        server.create()
        body = {"prompt": "x", "input_reference": server.upload()}
        answer = server.post("/v1/videos", json=body)
        assert (answer.status_code, server.error(answer)["code"]) == (429, "busy")
