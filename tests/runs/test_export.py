"""Policies as files: the same actions without jaxsoft, in JAX and in ONNX Runtime, and in gymnasium's environments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxsoft import load_policy
from jaxsoft.cli import main
from jaxsoft.envs import env_spec
from jaxsoft.errors import InputError
from jaxsoft.runs import export
from jaxsoft.runs.config import read_config
from jaxsoft.runs.export import export_policy

SMALL = "--hidden-sizes 4 --total-timesteps 64 --eval-every 0".split()

LOAD = """
import sys, jax, numpy as np
file, inputs, out = sys.argv[1:]
exported = jax.export.deserialize(bytearray(open(file, "rb").read()))
arrays = np.load(inputs)
np.savez(out, *(exported.call(*(arrays[name] for name in names.split())) for names in sorted(arrays["calls"])))
assert not any(name.split(".")[0] == "jaxsoft" for name in sys.modules)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of discrete actions."""
    path = tmp_path_factory.mktemp("export") / "run"
    sweep = "--num-seeds 2 --sweep learning-rate=1e-3,1e-2".split()
    assert main(["train", "soft_q_stream", "gymnax/CartPole-v1", *SMALL, *sweep, "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def continuous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "run"
    small = [*SMALL, *"--learning-starts 16 --batch-size 4 --replay-capacity 64".split()]
    assert main(["train", "sac", "gymnax/Pendulum-v1", *small, "--out", str(path)]) == 0
    return path


def observations(path: Path, num: int) -> np.ndarray:
    spec = env_spec(read_config(path).env_id)
    return np.random.default_rng(num).normal(size=(num, *spec.obs_shape)).astype(spec.obs_dtype)


def call_without_jaxsoft(file: Path, *calls: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Calls an exported function in a process that cannot import jaxsoft."""
    names = [[f"{i}-{j}" for j in range(len(inputs))] for i, inputs in enumerate(calls)]
    arrays: dict[str, Any] = {
        name: x for own, inputs in zip(names, calls, strict=True) for name, x in zip(own, inputs, strict=True)
    }
    inputs, out = file.with_suffix(".in.npz"), file.with_suffix(".out.npz")
    arrays["calls"] = np.array([" ".join(own) for own in names])
    np.savez(inputs, **arrays)
    command = [sys.executable, "-c", LOAD, str(file), str(inputs), str(out)]
    subprocess.run(command, check=True, cwd=file.parent, timeout=120)
    return list(np.load(out).values())


def test_stablehlo_acts_as_the_policy_without_jaxsoft(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("flatbuffers")
    file = tmp_path / "of" / "policy.hlo"
    assert main(["export", str(run), "--seed", "1", "--cell", "learning-rate=1e-3", "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n{file.with_suffix('.json')}\n"
    batches = [observations(run, num) for num in (1, 200)]
    actions = call_without_jaxsoft(file, *((obs,) for obs in batches))
    policy = load_policy(run, seed=1, learning_rate=1e-3)
    for obs, action in zip(batches, actions, strict=True):
        np.testing.assert_array_equal(action, policy(obs))
    assert 0 < actions[1].mean() < 1  # both of them
    description = json.loads(file.with_suffix(".json").read_text())
    assert description["inputs"] == ["obs: float32 [batch, 4]"]
    assert description["output"] == "action: int32 [batch]"
    assert (description["seed"], description["settings"]) == (1, {"learning_rate": 0.001})


def test_a_stochastic_policy_takes_a_key(continuous: Path, tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers")
    file = export_policy(continuous, tmp_path / "policy.stablehlo", deterministic=False)
    keys, obs = np.array([[0, 1], [0, 1], [0, 2]], np.uint32), np.tile(observations(continuous, 1), (50, 1))
    first, again, other = call_without_jaxsoft(file, *((key, obs) for key in keys))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first)) == 50
    assert (first != other).all()
    assert (np.abs(first) <= 2).all()  # torques, in the environment's units


def test_a_converter_gets_no_choice_of_a_platform(run: Path) -> None:
    policy = load_policy(run, seed=1, learning_rate=1e-3)
    obs = observations(run, 200)
    act = export._act(policy)
    assert "platform_index" in str(jax.make_jaxpr(act)(obs))  # its layers are normalised
    inputs = jax.ShapeDtypeStruct(obs.shape, obs.dtype)
    converted = export._for_converters(act, inputs)
    assert not {"platform_index", "cond", "custom_vjp_call"} & {
        equation.primitive.name for equation in jax.make_jaxpr(converted)(obs).eqns
    }
    np.testing.assert_array_equal(jax.jit(converted)(obs)[0], policy(obs))


# an ensemble under vmap, streams' and PPO's layers, convolutions, integers
ONNX = [
    ("soft_q_stream", "gymnax/CartPole-v1", "--learning-rate 1e-3"),
    ("soft_q_replay", "gymnax/CartPole-v1", "--learning-starts 32 --replay-capacity 64"),
    ("sac", "gymnax/Pendulum-v1", "--learning-starts 16 --batch-size 4 --replay-capacity 64"),
    ("ppo", "gymnax/Pendulum-v1", "--rollout-length 16 --num-minibatches 2"),
    ("soft_q", "gymnax/Breakout-MinAtar", "--rollout-length 4"),
    ("soft_q", "finite/Chain-5", "--rollout-length 4"),
]


@pytest.mark.parametrize(("agent", "env", "options"), ONNX)
def test_onnx_acts_as_the_policy(
    agent: str, env: str, options: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "run"
    assert main(["train", agent, env, *SMALL, *options.split(), "--out", str(path)]) == 0
    caplog.clear()
    file = export_policy(path, tmp_path / "policy.onnx", format="onnx")
    assert not caplog.records  # the converter's warnings are not for users
    session, policy = runtime.InferenceSession(file), load_policy(path)
    for num in (1, 200):
        obs = observations(path, num)
        (action,) = session.run(["action"], {"obs": obs})
        assert action.dtype == policy(obs).dtype
        np.testing.assert_allclose(action, policy(obs), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_exported_is_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(InputError, match="format is 'torch'; it must be stablehlo or onnx"):
        export_policy(run, format="torch")
    with pytest.raises(InputError, match=r"onnx.*no random keys"):
        export_policy(run, format="onnx", deterministic=False)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"onnx needs the package jax2onnx: pip install 'jaxsoft\[onnx\]'"):
        export_policy(run, format="onnx")
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: True)
    with pytest.raises(InputError, match="the description beside it has that name"):
        export_policy(run, tmp_path / "policy.json")
    with pytest.raises(InputError, match="nothing names 2 cells"):
        export_policy(run, tmp_path / "policy")
    assert main(["export", str(run), "--cell", "learning-rate=1e-3,1e-2"]) == 2
    assert "cell gives learning_rate 2 values" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_policy_acts_in_gymnasiums_vector_environments(run: Path) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    policy = load_policy(run, seed=1, learning_rate=1e-3)
    envs = gymnasium.make_vec("CartPole-v1", num_envs=3)
    obs, _ = envs.reset(seed=0)
    for _ in range(20):
        actions = policy(obs)
        assert actions.shape == (3,)
        assert envs.action_space.contains(actions.astype(envs.action_space.dtype))
        np.testing.assert_array_equal(actions, [policy(one) for one in obs])
        obs, *_ = envs.step(actions)
    envs.close()
