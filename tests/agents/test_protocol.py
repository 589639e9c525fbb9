"""Every agent passes the shared suite: the built-in ones, and one that is defined outside of the package."""

from __future__ import annotations

from typing import Any

import pytest
from support import munchausen
from support.agent_suite import AgentSuite, Case, Subject, make_subject

from jaxsoft.agents import AGENTS, get_agent
from jaxsoft.errors import InputError
from jaxsoft.types import Box, Discrete

SCHEDULES = {"exploration": 0.3, "final_exploration": 0.1, "final_temperature": 0.05}
ROLLOUTS = {"rollout_length": 4, "num_epochs": 2, "num_minibatches": 2}
ENTROPY = {"entropy_weight": 0.01, "learning_rate": 3e-3}
SEQUENCES = {"batch_size": 8, "sequence_length": 4}

CASES = [
    Case(AGENTS["sac"], {"batch_size": 8}, Box, "critic_loss"),
    Case(AGENTS["sac_v1"], {"batch_size": 8}, Box, "critic_loss"),
    Case(AGENTS["sac_discrete"], SEQUENCES | {"lambda_": 0.9, "learning_rate": 1e-3}, Discrete, "critic_loss"),
    Case(AGENTS["td3"], {"batch_size": 8}, Box, "critic_loss", has_density=False),
    Case(AGENTS["ddpg"], {"batch_size": 8}, Box, "critic_loss", has_density=False),
    Case(AGENTS["ppo"], ROLLOUTS | ENTROPY, Box, "value_loss"),
    Case(AGENTS["ppo"], ROLLOUTS | ENTROPY, Discrete, "value_loss"),
    Case(AGENTS["soft_q"], SCHEDULES | ROLLOUTS | {"reference": "average"}),
    Case(AGENTS["soft_q_replay"], SCHEDULES | SEQUENCES | {"num_critics": 2}),
    Case(AGENTS["soft_q_stream"], SCHEDULES | {"sparsity": 0.5}),
    Case(munchausen.KIND, {"batch_size": 8}),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def subject(request: Any) -> Subject:
    return make_subject(request.param)


class TestEveryAgent(AgentSuite):
    """The shared suite."""


def test_every_built_in_agent_is_tested_with_every_kind_of_actions() -> None:
    tested = {(case.kind.name, case.action_space) for case in CASES}
    assert tested >= {(name, space) for name, kind in AGENTS.items() for space in kind.action_spaces}


def test_an_unknown_agent_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(InputError, match=r"unknown agent 'sacc'; did you mean sac\? \(agents: sac, sac_v1"):
        get_agent("sacc")
