"""The description of the interface is complete, and true: whatever is sent, what comes back is as described."""

import itertools
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from playing import Played, serving
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from longtake.web.app import create_app
from longtake.web.settings import Settings

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
EXAMPLES = 8  # of each call
ENDLESS = ("/v1/events", "/v1/videos/{id}/events", "/v1/videos/sync")  # streams, and a call that waits for a worker


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory, tiny_backbone_folder, tiny_run):
    """A server with a finished, a half made and a waiting video."""
    with serving(Settings(tmp_path_factory.mktemp("fuzzed"), models={"tiny": str(tiny_backbone_folder)})) as server:
        worker = Played(server, tiny_run)
        server.create("finished")
        worker.all()
        server.create("half")
        worker.ask()
        worker.begin()
        worker.make(0)
        server.create("waiting")
        yield server


def described():
    return create_app(Settings(home=Path("none"))).openapi()


OPERATIONS = [
    (method, path) for path, operations in described()["paths"].items() for method in operations if path not in ENDLESS
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[" ".join(one) for one in OPERATIONS])
def test_whatever_is_sent_the_answer_is_as_described(fuzzed, method, path):
    operation = schemathesis.openapi.from_dict(described())[path][method.upper()]
    ids = [video["id"] for video in fuzzed.get("/v1/videos?limit=3").json()["data"]]
    real = [
        {"id": id, "lease": lease}
        for id, lease in zip(ids, [*fuzzed.studio.store.leases(), "none", "none"], strict=False)
    ]
    sent = itertools.count()

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def check(case):
        number = next(sent)
        if number % 2 and real:  # things that are there
            given = case.path_parameters or {}
            case.path_parameters = {
                name: real[number // 2 % len(real)].get(name, value) for name, value in given.items()
            }
        if isinstance(case.body, dict) and "wait" in case.body:
            case.body["wait"] = 0
        case.call_and_validate(base_url=fuzzed.address, checks=CHECKS, timeout=60)

    check()


def test_every_call_says_what_it_does_and_how_it_refuses():
    for path, operations in described()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], path
            assert operation["description"], path
            answers = operation["responses"].items()
            refused = [answer for status, answer in answers if status.startswith("4") and status != "416"]
            assert refused, (method, path)
            for answer in refused:
                reference = answer["content"]["application/json"]["schema"]["$ref"]
                assert reference.endswith("/Failure"), (method, path)
