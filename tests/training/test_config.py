"""Settings: one name everywhere, presets under what is given, and bad values told in one line."""

from typing import Any, cast

import jax
import numpy as np
import pytest

from jaxsoft import agents, make_env, make_train
from jaxsoft.agents import sac
from jaxsoft.envs import names as env_names
from jaxsoft.envs.gymnasium import make_host_envs
from jaxsoft.envs.wrappers import scale_actions, scale_to_bounds
from jaxsoft.errors import InputError
from jaxsoft.training.config import RULES, make_config, preset, settings_of, validate
from jaxsoft.training.schedule import report_timesteps, segments
from jaxsoft.types import AgentKind, Box, Discrete, Env, EnvSpec, check_bounds

SPEC = EnvSpec("probe/Any-v0", (3,), np.dtype(np.float32), Box(-np.ones(1), np.ones(1)), 10)


def spec_of(agent: str) -> EnvSpec:
    """An environment of the agent's kind of actions."""
    if Box in agents.get_agent(agent).action_spaces:
        return SPEC
    return EnvSpec("probe/Any-v0", (3,), np.dtype(np.float32), Discrete(3), 10)


def test_settings_survive_the_round_trip():
    config = make_config("sac", "gymnax/Pendulum-v1", {"learning_rate": 2e-3, "num_envs": 4})
    assert make_config("sac", "", settings_of(config)) == config


def test_given_settings_come_before_the_preset_and_the_preset_before_defaults():
    settings = settings_of(make_config("sac", "gymnax/Pendulum-v1", {"batch_size": 32}))
    tuned, defaults = preset(sac.KIND, "gymnax/Pendulum-v1"), sac.Config()
    assert settings["batch_size"] == 32
    assert settings["learning_rate"] == tuned["learning_rate"] != defaults.learning_rate
    assert settings["polyak"] == defaults.polyak


@pytest.mark.parametrize("agent", agents.AGENTS)
def test_presets_name_known_environments_and_valid_settings(agent: str):
    tuned = [env_id for env_id in env_names() if preset(agents.get_agent(agent), env_id)]
    assert tuned
    for env_id in tuned:
        validate(make_config(agent, env_id, {}), make_env(env_id).spec)


@pytest.mark.parametrize("agent", agents.AGENTS)
def test_every_setting_has_a_rule_or_a_type_that_is_one(agent: str):
    settings = settings_of(make_config(agent, "", {}))
    without = {name for name, value in settings.items() if name not in RULES and not isinstance(value, bool)}
    words = {"trace", "step_size_rule", "exploration_policy", "reference", "activation", "network", "matmul_precision"}
    assert without <= words  # and modules


@pytest.mark.parametrize("agent", agents.AGENTS)
def test_defaults_are_valid(agent: str):
    validate(make_config(agent, "", {}), spec_of(agent))


@pytest.mark.parametrize("agent", agents.AGENTS)
def test_all_settings_survive_the_round_trip(agent: str):
    config = make_config(agent, "", {"hidden_sizes": [7, 5], "num_envs": 3})
    again = make_config(agent, "", settings_of(config))
    assert again == config
    assert again.agent.__class__ is agents.get_agent(agent).Config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be a positive integer"),
        ({"num_envs": -1}, "num_envs is -1; it must be a positive integer"),
        ({"total_timesteps": 0}, "total_timesteps is 0"),
        ({"replay_capacity": 0}, "replay_capacity is 0"),
        ({"learning_starts": -1}, "learning_starts is -1"),
        ({"updates_per_step": 0}, "updates_per_step is 0"),
        ({"eval_episodes": 0}, "eval_episodes is 0"),
        ({"eval_every": -1}, "eval_every is -1; it must be 0 or a positive integer"),
        ({"hidden_sizes": (64, 0)}, r"hidden_sizes is \(64, 0\); it must be positive integers, 100 at most, or none"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"discount": 1.5}, "discount is 1.5; it must be between 0 and 1"),
        ({"polyak": -0.1}, "polyak is -0.1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"batch_size": 300, "replay_capacity": 200}, "batch_size is 300, more than replay_capacity, 200"),
        ({"num_envs": 512, "replay_capacity": 300}, "replay_capacity is 300, less than one step of num_envs=512"),
        (
            {"total_timesteps": 1000, "learning_starts": 1000},
            "total_timesteps is 1000, but the first update comes after",
        ),
        ({"total_timesteps": 1000, "learning_starts": 999, "num_envs": 16}, "after 1008 random steps"),
    ],
)
def test_bad_values_are_named(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        validate(make_config("sac", "", {"total_timesteps": 10_000} | settings), SPEC)


SHARED_BY_SOFT_Q = [
    ({"lambda_": 1.5}, "lambda_ is 1.5; it must be between 0 and 1"),
    ({"lambda_": float("nan")}, "lambda_ is nan"),
    ({"temperature": 0.0}, "temperature is 0.0; it must be a positive number"),
    ({"final_temperature": 0.0}, "final_temperature is 0.0; it must be a positive number, or none"),
    ({"target_entropy": float("inf")}, "target_entropy is inf; it must be a finite number"),
    ({"target_kl": 0.0}, "target_kl is 0.0; it must be a positive number, or none"),
    ({"temperature_learning_rate": 0.0}, "temperature_learning_rate is 0.0; it must be a positive number"),
    ({"exploration": 1.5}, "exploration is 1.5; it must be between 0 and 1"),
    ({"final_exploration": -0.5}, "final_exploration is -0.5; it must be between 0 and 1, or none"),
    ({"decay_fraction": 2.0}, "decay_fraction is 2.0; it must be between 0 and 1"),
    ({"reference_polyak": 1.5}, "reference_polyak is 1.5; it must be between 0 and 1"),
    ({"channels": (0,)}, r"channels is \(0,\); it must be positive integers"),
    ({"learning_rate": -1.0}, "learning_rate is -1.0; it must be a positive number"),
]
OF_ONE_AGENT = [
    ("soft_q", {"rollout_length": 0}, "rollout_length is 0; it must be a positive integer"),
    ("soft_q", {"num_epochs": 0}, "num_epochs is 0; it must be a positive integer"),
    ("soft_q", {"num_minibatches": 0}, "num_minibatches is 0; it must be a positive integer"),
    ("soft_q", {"max_grad_norm": 0.0}, "max_grad_norm is 0.0; it must be a positive number"),
    (
        "soft_q",
        {"rollout_length": 10, "num_envs": 3, "num_minibatches": 4},
        "num_minibatches is 4; it must divide rollout_length × num_envs, 10 × 3",
    ),
    ("soft_q_replay", {"num_critics": 3}, "num_critics is 3; it must be 1 or 2"),
    ("soft_q_replay", {"sequence_length": 0}, "sequence_length is 0; it must be a positive integer"),
    ("soft_q_replay", {"polyak": 2.0}, "polyak is 2.0; it must be between 0 and 1"),
    (
        "soft_q_replay",
        {"sequence_length": 9, "learning_starts": 16, "num_envs": 2},
        "sequence_length is 9; the replay must hold that many steps of every environment before the first update",
    ),
    (
        "soft_q_replay",
        {"sequence_length": 9, "learning_starts": 100, "num_envs": 2, "replay_capacity": 17, "batch_size": 4},
        "sequence_length is 9; the replay must hold that many steps",
    ),
    ("sac", {"lambda_": 1.5, "sequence_length": 4}, "lambda_ is 1.5; it must be between 0 and 1"),
    ("sac", {"sequence_length": 9, "learning_starts": 8}, "sequence_length is 9; the replay must hold that many steps"),
    ("sac_discrete", {"target_entropy_share": 2.0}, "target_entropy_share is 2.0; it must be between 0 and 1"),
    ("td3", {"policy_delay": 0}, "policy_delay is 0; it must be a positive integer"),
    ("td3", {"target_noise": -0.1}, "target_noise is -0.1; it must be 0 or a positive number"),
    ("ppo", {"clip_range": 1.0}, "clip_range is 1.0; it must be between 0 and 1, both excluded"),
    ("ppo", {"entropy_weight": -0.1}, "entropy_weight is -0.1; it must be 0 or a positive number"),
    ("ppo", {"value_weight": 0.0}, "value_weight is 0.0; it must be a positive number"),
    ("ppo", {"num_minibatches": 3}, "num_minibatches is 3; it must divide rollout_length × num_envs, 128 × 16"),
    (
        "ppo",
        {"rollout_length": 8, "num_envs": 4, "num_minibatches": 32},
        "num_minibatches is 32; it must be less than rollout_length × num_envs: an advantage by itself",
    ),
    ("soft_q_stream", {"num_envs": 2}, "num_envs is 2; it must be 1: soft_q_stream learns from every step as it comes"),
    ("soft_q_stream", {"overshoot_bound": -1.0}, "overshoot_bound is -1.0; it must be 0 or a positive number"),
    ("soft_q_stream", {"sparsity": 1.0}, "sparsity is 1.0; it must be at least 0 and less than 1"),
    ("sac_stream", {"num_envs": 2}, "num_envs is 2; it must be 1: sac_stream learns from every step as it comes"),
    ("sac_stream", {"actor_overshoot_bound": -1.0}, "actor_overshoot_bound is -1.0; it must be 0 or a positive number"),
]


@pytest.mark.parametrize(
    ("agent", "settings", "message"),
    [("soft_q", *case) for case in SHARED_BY_SOFT_Q] + OF_ONE_AGENT,
)
def test_bad_values_of_the_other_agents_are_named(agent: str, settings: dict, message: str):
    config = make_config(agent, "", {"total_timesteps": 10_000} | settings)
    with pytest.raises(InputError, match=message) as caught:
        validate(config, spec_of(agent))
    assert "\n" not in str(caught.value)


def test_a_sequence_as_long_as_the_prefill_is_allowed():
    settings = {"sequence_length": 8, "learning_starts": 16, "num_envs": 2}
    validate(make_config("soft_q_replay", "", settings), spec_of("soft_q_replay"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_entropy": 0.5, "target_kl": 0.1}, "target_entropy and target_kl are both given"),
        ({"final_temperature": 0.5, "target_kl": 0.1}, "final_temperature and target_kl are both given"),
        ({"reference": "0,1"}, "reference has 2 logits, '0,1'; there are 3 actions"),
        ({"reference": "unifrom"}, "reference is 'unifrom'; it must be uniform, average, 3 comma-separated logits"),
    ],
)
@pytest.mark.parametrize("agent", ["soft_q", "soft_q_replay", "soft_q_stream"])
def test_contradictions_are_told_before_anything_is_compiled(agent: str, settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        make_train(agent, make_env("gymnax/Acrobot-v1"), total_timesteps=10_000, **settings)


@pytest.mark.parametrize("agent", ["soft_q", "soft_q_replay", "soft_q_stream"])
def test_soft_q_refuses_continuous_actions(agent: str):
    message = f"{agent} needs discrete actions; those of gymnax/Pendulum-v1 are continuous"
    with pytest.raises(InputError, match=message):
        make_train(agent, make_env("gymnax/Pendulum-v1"), total_timesteps=10_000)


def test_logits_can_be_given_as_numbers_and_a_function_as_it_is():
    assert settings_of(make_config("soft_q", "", {"reference": [0, 1.5, -2]}))["reference"] == "0.0,1.5,-2.0"
    assert settings_of(make_config("soft_q", "", {"reference": abs}))["reference"] is abs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trace": "retrase"}, "trace is 'retrase'; did you mean retrace"),
        ({"trace": None}, "trace is None"),
        ({"trace": "mine"}, "uncorrected, watkins, or in Python a function"),
        (
            {"network": "Mine"},
            "network is 'Mine'; it must be none, or in Python a Flax module or a function that makes",
        ),
        ({"exploration_policy": "greedy"}, "exploration_policy is 'greedy'"),
        ({"final_temperature": "low"}, "final_temperature is 'low'; it must be a number or none"),
        ({"reference": 3}, "reference is 3; it must be a reference policy's name, logits, or a function"),
        ({"normalise_obs": "yes"}, "normalise_obs is 'yes'; it must be true or false"),
        ({"channels": 16}, "channels is 16; it must be integers"),
    ],
)
def test_types_of_the_soft_q_settings_are_named(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        make_config("soft_q", "", settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1e-3}, "unknown setting 'learning_rat'; did you mean learning_rate"),
        ({"batch_size": "64"}, "batch_size is '64'; it must be an integer"),
        ({"batch_size": 64.5}, "batch_size is 64.5; it must be an integer"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; it must be a number"),
        ({"learn_temperature": 1}, "learn_temperature is 1; it must be true or false"),
        ({"hidden_sizes": 64}, "hidden_sizes is 64; it must be integers"),
    ],
)
def test_unknown_names_and_types_are_named(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        make_config("sac", "", settings)


def test_unknown_agent_is_told_its_nearest():
    with pytest.raises(InputError, match="unknown agent 'sca'; did you mean sac"):
        make_config("sca", "", {})


def test_continuous_agent_refuses_discrete_actions():
    with pytest.raises(InputError, match=r"sac needs continuous actions; those of gymnax/CartPole-v1 are discrete"):
        make_train("sac", make_env("gymnax/CartPole-v1"), total_timesteps=10_000)


def test_discrete_agent_refuses_continuous_actions():
    kind = AgentKind("discrete_agent", sac.Config, (Discrete,), sac.experience, sac.make)
    with pytest.raises(
        InputError, match="discrete_agent needs discrete actions; those of gymnax/Pendulum-v1 are continuous"
    ):
        make_train(kind, make_env("gymnax/Pendulum-v1"), total_timesteps=10_000)


def test_an_agent_needs_a_vector_of_actions():
    square = Box(np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32))
    with pytest.raises(InputError, match=r"sac needs a vector of actions; those of probe/Square are Box\[2, 2\]"):
        validate(make_config("sac", "", {}), EnvSpec("probe/Square", (3,), np.dtype(np.float32), square, 10))


BAD_BOUNDS = [(-np.inf, np.inf), (0, np.inf), (np.nan, 1), (-3.4e38, 3.4e38), (1, -1)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("low", "high"), [*BAD_BOUNDS, (-1e300, 1)])
def test_bounds_between_which_nothing_can_be_computed_are_refused(low: float, high: float, dtype: type):
    with np.errstate(over="ignore"):
        box = Box(np.array([-1, low]).astype(dtype), np.array([1, high]).astype(dtype))
    spec = EnvSpec("probe/Wide", (3,), np.dtype(np.float32), box, 10)
    env = Env(spec, *2 * (cast(Any, None),))
    for use in (lambda: validate(make_config("sac", "", {}), spec), lambda: scale_actions(env)):
        with pytest.raises(InputError, match=r"actions of probe/Wide go from .*; low must not be above .*in float32"):
            use()


def test_the_widest_bounds_that_can_be_computed_are_taken():
    widest = Box(np.array([-1.7e38, 0], np.float32), np.array([1.7e38, 3.4e38], np.float32))
    check_bounds("probe/Widest", widest)
    corners = jax.numpy.array([[-1.0, -1], [0, 0], [1, 1]])
    np.testing.assert_allclose(
        scale_to_bounds(corners, widest), [[-1.7e38, 0], [0, 1.7e38], [1.7e38, 3.4e38]], rtol=1e-6
    )


def test_host_environments_of_such_bounds_are_refused(monkeypatch: pytest.MonkeyPatch):
    gymnasium = pytest.importorskip("gymnasium")

    class Wide(gymnasium.Env):
        action_space = gymnasium.spaces.Box(-3.4e38, 3.4e38, (1,))
        observation_space = gymnasium.spaces.Box(-1, 1, (1,))

    gymnasium.register("Wide-v0", lambda: Wide(), max_episode_steps=5)
    with pytest.raises(InputError, match="the actions of gymnasium/Wide-v0 go from"):
        make_host_envs("gymnasium/Wide-v0", 1)


@pytest.mark.parametrize("agent", ["ppo", "sac_discrete", "soft_q", "soft_q_replay", "soft_q_stream"])
def test_more_convolutions_than_an_image_has_room_for_are_refused(agent: str):
    def check(channels: tuple[int, ...], *shape: int, **settings: Any) -> None:
        spec = EnvSpec("probe/Image", shape, np.dtype(np.float32), Discrete(3), 10)
        config = make_config(agent, "", {"channels": channels} | settings)
        config.kind.make(config.agent, spec, 100)

    check((2,) * 4, 10, 10, 1)
    check((2,) * 5, 10)  # no image
    check((), 1, 9, 1)
    told = r"channels is \(2, 2, 2, 2, 2\); .* so \[10, 99, 1\] in probe/Image leaves room for 4 at most"
    with pytest.raises(InputError, match=told):
        check((2,) * 5, 10, 99, 1)
    with pytest.raises(InputError, match="room for 0 at most"):
        check((2,), 9, 2, 1)
    if agent != "ppo":  # a linear function has no convolutions
        check((2,) * 5, 10, 10, 1, hidden_sizes=())


def test_numpy_and_jax_scalars_are_taken_as_numbers():
    settings = settings_of(
        make_config("sac", "", {"learning_rate": jax.numpy.float32(0.5), "batch_size": np.int64(32)})
    )
    assert settings["learning_rate"] == 0.5
    assert settings["batch_size"] == 32


MOST = 2**31 - 1


@pytest.mark.parametrize(
    ("agent", "settings", "told"),
    [
        ("ppo", {"total_timesteps": MOST}, "rounded up to whole turns of 2048 steps it must be below 2\\^31"),
        ("sac", {"total_timesteps": MOST, "num_envs": 1024}, "rounded up to whole turns of 1024 steps"),
        ("sac", {"total_timesteps": 10**8, "updates_per_step": 30}, "30 gradient steps in each of 100000000 turns"),
        ("soft_q", {"total_timesteps": 10**9, "num_envs": 1, "num_epochs": 70}, "560 gradient steps in each of"),
        (
            "sac",
            {"replay_capacity": 2**31},
            "replay_capacity is 2147483648; it must be a positive integer below 2\\^31",
        ),
        ("sac", {"eval_every": 10**30}, "eval_every is 1.*; it must be 0 or a positive integer below 2\\^31"),
        ("sac", {"eval_episodes": 2**31}, "eval_episodes is 2147483648; it must be"),
        ("sac", {"random_action_repeat": 2**40}, "random_action_repeat is 1099511627776; it must be"),
        ("td3", {"policy_delay": 2**31}, "policy_delay is 2147483648; it must be"),
    ],
)
def test_what_is_counted_stays_below_2_to_the_31(agent: str, settings: dict[str, int], told: str):
    config = make_config(agent, "", {"eval_every": 0} | settings)
    with pytest.raises(InputError, match=told):
        validate(config, spec_of(agent))


@pytest.mark.parametrize(("agent", "total_timesteps"), [("sac", MOST), ("ppo", MOST - MOST % 2048)])
def test_as_many_timesteps_as_can_be_counted_are_accepted(agent: str, total_timesteps: int):
    config = make_config(agent, "", {"total_timesteps": total_timesteps, "eval_every": 0})
    validate(config, spec_of(agent))
    timesteps = report_timesteps(config)
    assert timesteps[-1] == config.total_timesteps
    assert segments(config).min() > 0
