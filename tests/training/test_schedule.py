"""How long a run is: turns between reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jaxsoft.training.config import make_config
from jaxsoft.training.schedule import num_prefill_steps, segments


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # counted in steps of all environments, after the prefill
        ({"total_timesteps": 100, "eval_every": 25, "learning_starts": 10}, [15, 25, 25, 25]),
        ({"total_timesteps": 100, "eval_every": 40, "learning_starts": 10}, [30, 40, 20]),  # does not divide
        ({"total_timesteps": 100, "eval_every": 25, "learning_starts": 60}, [15, 25]),  # prefill past two reports
        ({"total_timesteps": 100, "eval_every": 25, "learning_starts": 50}, [25, 25]),  # prefill to a report exactly
        ({"total_timesteps": 100, "eval_every": 500, "learning_starts": 10}, [90]),  # only the last one
        ({"total_timesteps": 100, "eval_every": 100, "learning_starts": 10}, [90]),
        # three environments: timesteps 25, 50, 75, 100 are in steps 9, 17, 25, 34; the prefill of 10 takes 4
        ({"total_timesteps": 100, "eval_every": 25, "learning_starts": 10, "num_envs": 3}, [5, 8, 8, 9]),
        # an interval below one step of all environments: a report at every step
        ({"total_timesteps": 32, "eval_every": 2, "learning_starts": 8, "num_envs": 8}, [1, 1, 1]),
        # no evaluation: 20 reports, less those within the prefill
        ({"total_timesteps": 200, "eval_every": 0, "learning_starts": 10}, [10] * 19),
        ({"total_timesteps": 30, "eval_every": 0, "learning_starts": 5}, [1, *[2] * 12]),
    ],
)
def test_segments(settings: dict[str, Any], expected: list[int]) -> None:
    config = make_config("sac", "probe", settings | {"replay_capacity": 1000})
    steps = segments(config)
    assert steps.dtype == np.int32
    assert steps.tolist() == expected
    total = (num_prefill_steps(config) + steps.sum()) * config.num_envs
    assert 0 <= total - config.total_timesteps < config.num_envs
