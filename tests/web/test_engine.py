"""The engine comes beside everything else, or does not come, and whoever needs it is told."""

import pytest
from playing import serving

from longtake.web import engine
from longtake.web.refusal import Refusal


def test_an_engine_that_cannot_be_loaded_is_said_to_have_failed(settings, monkeypatch):
    monkeypatch.setattr(engine, "MODULES", ("longtake.no_such_module",))
    with serving(settings) as server:
        refused = server.post("/v1/plan", json={"prompt": "x"})
        assert (refused.status_code, server.error(refused)["code"]) == (500, "server_error")
        assert "longtake doctor" in server.error(refused)["message"]
        assert server.get("/health").json()["engine"] == "failed"
        assert server.get("/v1/videos").status_code == 200


def test_an_engine_that_takes_too_long_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE", 0.0)
    with pytest.raises(Refusal):
        engine.Engine().wait()


def test_what_fails_is_answered_in_our_shape_and_without_its_reasons(server, monkeypatch):
    def fail():
        raise RuntimeError("a secret")

    monkeypatch.setattr(server.studio, "workers", fail)
    answer = server.get("/health")
    assert (answer.status_code, server.error(answer)["code"]) == (500, "server_error")
    assert "secret" not in answer.text
    assert "content-security-policy" in answer.headers
