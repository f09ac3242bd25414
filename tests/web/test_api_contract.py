"""The API against its own description: every answer has the form that /openapi.json promises, whatever is asked."""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from web.served import with_desk

from kinoswarm_coordinator.web.app import create_app

_NEVER_ENDS = "/api/v1/events"
CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]


OPERATIONS = [
    "/api/v1/status",
    "/api/v1/history",
    "/api/v1/health",
    "/api/v1/actions",
    "/api/v1/log/head",
    "/api/v1/nodes",
    "/api/v1/nodes/{peer}",
    "/api/v1/verdicts",
    "/api/v1/leaderboard",
    "/api/v1/accounts/{account}",
    "/api/v1/ledger",
    "/api/v1/clusters",
    "/api/v1/clusters/{cluster}",
    "/api/v1/releases",
    "/api/v1/releases/{version}",
    "/api/v1/releases/{version}/manifest",
    "/api/v1/try/{wish_id}",
    "/api/v1/try/{wish_id}/clip.mp4",
    "/api/v1/try/{wish_id}/note",
    "/api/v1/try/{wish_id}/events",
    "/kinoswarm/1/blobs/{blob}",
    "/kinoswarm/1/blobs/{blob}/manifest",
]
SENT = ["/api/v1/try"]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory):
    app = create_app(with_desk(tmp_path_factory.mktemp("swarm")))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize(
    ("method", "path"),
    [*(("GET", path) for path in OPERATIONS), *(("POST", path) for path in SENT)],
)
def test_every_answer_has_the_promised_form(described, method: str, path: str) -> None:
    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=CHECKS)
    @given(described[path][method].as_strategy())
    def ask(case) -> None:
        # A prompt has rules that no schema can say, so a well-formed one may still be refused.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    ask()


def test_no_route_of_the_api_is_forgotten_here(described) -> None:
    public = {path for path in described.raw_schema["paths"] if path.startswith("/api/")}
    assert public - {_NEVER_ENDS} <= {*OPERATIONS, *SENT}


def test_the_description_names_types_examples_and_problems(tmp_path: Path) -> None:
    described = create_app(with_desk(tmp_path)).openapi()
    assert {"SwarmView", "NodesPiece", "VerdictsPiece", "Problem"} <= set(
        described["components"]["schemas"]
    )
    status = described["paths"]["/api/v1/status"]["get"]["responses"]["200"]
    assert status["content"]["application/json"]["example"]["name"] == "Corridors & Canyons"
    unknown = described["paths"]["/api/v1/nodes/{peer}"]["get"]["responses"]["404"]
    assert "application/problem+json" in unknown["content"]
