"""Every agent passes the shared suite: the built-in ones, and one that is defined outside of the package."""

from __future__ import annotations

from typing import Any

import pytest
from support import munchausen

from jaxsoft.agents import AGENTS, get_agent
from jaxsoft.errors import InputError
from jaxsoft.testing import AgentSuite, Case, Subject, make_subject

SCHEDULES = {"exploration": 0.3, "final_exploration": 0.1, "final_temperature": 0.05}
ROLLOUTS = {"rollout_length": 4, "num_epochs": 2, "num_minibatches": 2}
SEQUENCES = {"batch_size": 8, "sequence_length": 4}

SETTINGS: dict[str, dict[str, Any]] = {
    "sac": {"batch_size": 8},
    "sac_v1": {"batch_size": 8},
    "sac_discrete": SEQUENCES | {"lambda_": 0.9, "learning_rate": 1e-3},
    "sac_stream": {"sparsity": 0.5, "target_entropy": -1.0},
    "td3": {"batch_size": 8},
    "ddpg": {"batch_size": 8},
    "ppo": ROLLOUTS | {"entropy_weight": 0.01, "learning_rate": 3e-3},
    "soft_q": SCHEDULES | ROLLOUTS | {"reference": "average"},
    "soft_q_replay": SCHEDULES | SEQUENCES | {"num_critics": 2},
    "soft_q_stream": SCHEDULES | {"sparsity": 0.5},
    "munchausen": {"batch_size": 8},
}
WITHOUT_DENSITY = ("td3", "ddpg")

CASES = [
    Case(kind, space, SETTINGS.get(kind.name, {}), has_density=kind.name not in WITHOUT_DENSITY)
    for kind in (*AGENTS.values(), munchausen.KIND)
    for space in kind.action_spaces
]


# ddpg is td3 with other settings
PARAMS = [pytest.param(case, marks=pytest.mark.thorough if case.kind.name == "ddpg" else []) for case in CASES]


@pytest.fixture(scope="module", params=PARAMS, ids=str)
def subject(request: Any) -> Subject:
    return make_subject(request.param)


class TestEveryAgent(AgentSuite):
    """The shared suite."""


def test_an_unknown_agent_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(InputError, match=r"unknown agent 'sacc'; did you mean sac\? \(agents: sac, sac_v1"):
        get_agent("sacc")
