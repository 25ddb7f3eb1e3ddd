"""Who may call: this machine's own pages and programs; others with a token; pages of others never."""

from dataclasses import replace

import httpx2 as httpx
import pytest
from playing import serving

TOKEN = "a token of the test"
PAGES = [
    ("GET", "/v1/videos"),
    ("POST", "/v1/plan"),
    ("GET", "/health"),
    ("DELETE", "/v1/videos/x"),
    ("GET", "/v1/events"),
]


@pytest.fixture
def guarded(settings):
    """One that other machines reach, which asks for a token."""
    with serving(replace(settings, host="0.0.0.0", token=TOKEN)) as served:
        yield served


@pytest.mark.parametrize(("method", "path"), PAGES)
@pytest.mark.parametrize(
    "host", ["rebound.example", "rebound.example:7860", "127.0.0.1.example", "", "[::1", "192.168.0.5"]
)
def test_a_name_that_was_rebound_to_this_machine_is_not_served(server, method, path, host):
    answer = server.client.request(method, path, headers={"host": host})
    assert (answer.status_code, server.error(answer)["code"]) == (403, "forbidden")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST:1"])
def test_names_of_this_machine_are_served(server, host):
    assert server.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(("method", "path"), PAGES)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
def test_pages_of_others_are_not_served(server, method, path, headers):
    if path == "/health" and "sec-fetch-mode" in headers:
        pytest.skip("a link may lead to the page")
    answer = server.client.request(method, path, headers=headers)
    assert (answer.status_code, server.error(answer)["code"]) == (403, "forbidden")
    assert "access-control-allow-origin" not in answer.headers


def test_our_own_page_is_served(server):
    headers = {"origin": server.address, "sec-fetch-site": "same-origin"}
    assert server.post("/v1/plan", json={"prompt": "x"}, headers=headers).status_code == 200
    assert server.get("/health", headers={"sec-fetch-site": "none"}).status_code == 200


def test_a_page_that_is_named_may_call(settings):
    origin = "https://studio.example"
    with serving(replace(settings, origins=(origin,))) as server:
        asked = {"origin": origin, "access-control-request-method": "POST"}
        may = server.client.request("OPTIONS", "/v1/videos", headers=asked)
        assert (may.status_code, may.headers["access-control-allow-origin"]) == (204, origin)
        answer = server.get("/v1/videos", headers={"origin": origin, "sec-fetch-site": "cross-site"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert server.get("/v1/videos", headers={"origin": "https://other.example"}).status_code == 403


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer \u00e4"])
def test_without_the_token_nothing_is_answered(guarded, given):
    headers = {"authorization": given.encode()}
    for method, path in (*PAGES, ("POST", "/v1/worker/lease"), ("GET", "/openapi.json"), ("POST", "/v1/session")):
        if path == "/health":
            continue
        answer = httpx.request(method, guarded.address + path, headers=headers)
        assert (answer.status_code, guarded.error(answer)["code"]) == (401, "unauthorized"), path


def test_health_says_that_a_token_is_needed(guarded, server):
    assert httpx.get(guarded.address + "/health").json()["authorization"] == "bearer"
    assert server.get("/health").json()["authorization"] == "none"


def test_a_cookie_stands_for_the_token_and_does_not_hold_it(guarded):
    answer = guarded.post("/v1/session")
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    name, value = cookie.partition(";")[0].split("=")
    with httpx.Client(base_url=guarded.address, cookies={name: value}) as browser:
        assert browser.get("/v1/videos").status_code == 200
    with httpx.Client(base_url=guarded.address, cookies={name: "x" * 64}) as browser:
        assert browser.get("/v1/videos").status_code == 401


def test_any_name_is_served_to_whoever_has_the_token(guarded):
    assert guarded.get("/v1/videos", headers={"host": "studio.local:7860"}).status_code == 200


def test_a_token_can_be_asked_for_on_this_machine_too(settings):
    with serving(replace(settings, token=TOKEN)) as server:
        assert httpx.get(server.address + "/v1/videos").status_code == 401
        assert server.get("/v1/videos").status_code == 200
        assert server.get("/v1/videos", headers={"host": "rebound.example"}).status_code == 403


def test_every_answer_has_the_headers_that_keep_pages_apart(server):
    for answer in (server.get("/health"), server.get("/nowhere"), server.get("/health", headers={"host": "x"})):
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_what_is_not_there_is_refused_in_the_same_shape(server):
    for method, path, status in (
        ("GET", "/v1/nothing", 404), ("PUT", "/v1/videos", 405), ("GET", "/v1/videos/video_x", 404),
        ("POST", "/v1/videos/video_x/cancel", 404), ("GET", "/../../etc/passwd", 404),
        ("GET", "/v1/videos?limit=0", 422),
        ("GET", "/v1/videos?order=up", 422), ("GET", "/v1/videos?after=video_x", 404),
    ):  # fmt: skip
        answer = server.client.request(method, path)
        assert answer.status_code == status, path
        assert server.error(answer)["message"]


def test_a_body_of_json_has_a_limit(server):
    answer = server.post("/v1/plan", json={"prompt": "x" * (1 << 20)})
    assert (answer.status_code, server.error(answer)["code"]) == (413, "too_large")
    assert "/v1/uploads" in server.error(answer)["message"]
