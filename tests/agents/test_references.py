"""Reference policies by name, by logits and by function, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsoft
from jaxsoft.agents.references import is_built_in, make_reference
from jaxsoft.cli import main
from jaxsoft.errors import InputError

OBS = jnp.zeros((5, 2))


@pytest.mark.parametrize("name", ["uniform", "average"])
def test_uniform_is_uniform_and_so_is_the_averages_own_reference(name: str) -> None:
    np.testing.assert_allclose(make_reference(name, 4)(OBS), -np.log(4), rtol=1e-6)


def test_logits_are_normalised() -> None:
    log_probs = np.asarray(make_reference("0, 1,2.5", 3)(OBS), np.float64)
    expected = np.exp([0, 1, 2.5]) / np.exp([0, 1, 2.5]).sum()
    np.testing.assert_allclose(np.exp(log_probs), expected, rtol=1e-6)
    np.testing.assert_allclose(make_reference("100,101,102.5", 3)(OBS), log_probs, rtol=1e-5)


def test_minus_infinity_forbids_an_action() -> None:
    np.testing.assert_allclose(np.exp(make_reference("0,-inf,0", 3)(OBS)), [0.5, 0, 0.5])


def test_a_function_is_taken_as_it_is() -> None:
    def of_obs(obs: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(obs)

    assert make_reference(of_obs, 2) is of_obs


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("unifrom", "reference is 'unifrom'; it must be uniform, average, 3 comma-separated logits"),
        ("", "reference is ''; it must be"),
        ("0,,1", "reference is '0,,1'; it must be"),
        ("0,1", "reference has 2 logits, '0,1'; there are 3 actions"),
        ("0", "reference has 1 logits, '0'; there are 3 actions"),
        ("0,nan,1", "logits must be numbers, at least one of them finite"),
        ("0,inf,1", "logits must be numbers, at least one of them finite"),
        ("-inf,-inf,-inf", "logits must be numbers, at least one of them finite"),
    ],
)
def test_what_is_no_reference_is_refused_in_one_line(reference: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_reference(reference, 3)
    assert "\n" not in str(caught.value)


def test_kinds_are_told_apart() -> None:
    assert [is_built_in(r) for r in ("uniform", "average", "0,1", "-inf,0", "runs/earlier")] == [True] * 4 + [False]


# An earlier run

TRAIN = "train soft_q_stream finite/Chain-5 --hidden-sizes 8 --total-timesteps 400 --eval-every 400 --eval-episodes 1"


def test_a_run_keeps_the_earlier_run_that_is_its_reference(tmp_path: Path) -> None:
    earlier, later, obs = tmp_path / "earlier", tmp_path / "later", np.eye(5, dtype=np.float32)
    assert main([*TRAIN.split(), "--temperature", "0.5", "--seed", "3", "--out", str(earlier)]) == 0
    log_pi = np.asarray(jaxsoft.load_reference(earlier)(jnp.asarray(obs)))
    np.testing.assert_allclose(np.exp(log_pi).sum(-1), 1, rtol=1e-5)
    policy = jaxsoft.load_policy(earlier)
    assert [policy(x) for x in obs] == log_pi.argmax(-1).tolist()
    assert np.ptp(log_pi) > 0.1  # it is not the uniform one
    # at a temperature without bound the Boltzmann policy is its reference
    named = ["--temperature", "1e4", "--agent.reference", str(earlier)]
    assert main([*TRAIN.split(), *named, "--out", str(later)]) == 0
    shutil.rmtree(earlier)
    np.testing.assert_allclose(jaxsoft.load_reference(later)(jnp.asarray(obs)), log_pi, atol=1e-3)
    policy = jaxsoft.load_policy(later)
    assert [policy(x) for x in obs] == log_pi.argmax(-1).tolist()
    assert main(["eval", str(later), "--num-episodes", "2"]) == 0
