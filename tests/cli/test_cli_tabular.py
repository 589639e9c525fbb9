"""The tabular command: that it finds what the library finds, says so, and refuses in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxsoft.cli import main
from jaxsoft.cli.tabular import METHODS
from jaxsoft.envs import finite
from jaxsoft.envs.mdp import reachable_states
from jaxsoft.tabular import n_step_soft_q, soft_policy_evaluation_exact, soft_policy_iteration, soft_q_lambda
from jaxsoft.tabular.behaviour import EpsilonGreedy, Fixed


def tabular(out: Path, command: str) -> dict[str, np.ndarray]:
    """Runs a command that must succeed; what it found."""
    assert main(["tabular", *command.split(), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "history.parquet", "history.png", "result.npz"}
    with np.load(out / "result.npz", allow_pickle=False) as result:
        return dict(result)


def test_policy_iteration_prints_every_policy_and_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture):
    found = tabular(tmp_path / "run", "soft-policy-iteration finite/Taxi-v3 --temperature 0.1")
    printed = capsys.readouterr().out
    assert "smallest gain" in printed
    assert "solved after 5 policies" in printed
    assert "return of the policy 7.930" in printed
    with jax.enable_x64(True):
        best = soft_policy_iteration(finite.taxi(), temperature=0.1)
    np.testing.assert_allclose(found["q"], best.q, rtol=1e-12)
    history = pq.read_table(tmp_path / "run" / "history.parquet")
    np.testing.assert_allclose(history["residual"], best.history.residuals[:5])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["method"] == "soft-policy-iteration"


def test_value_iteration_meets_policy_iteration(tmp_path: Path, capsys: pytest.CaptureFixture):
    objective = "finite/FrozenLake-v1 --discount 0.9 --reference zeros --tolerance 1e-9"
    by_values = tabular(tmp_path / "values", f"soft-value-iteration {objective}")
    assert "solved after" in capsys.readouterr().out
    by_policies = tabular(tmp_path / "policies", f"soft-policy-iteration {objective}")
    np.testing.assert_allclose(by_values["q"], by_policies["q"], atol=1e-7)
    with jax.enable_x64(True):
        entropy = soft_policy_iteration(
            finite.frozen_lake(discount=0.9),
            temperature=0.1,
            reference_log_probs=jax.numpy.zeros((16, 4)),
            tolerance=1e-9,
        )
    np.testing.assert_allclose(by_values["q"], entropy.q, atol=1e-7)


def test_what_stops_too_early_is_not_called_solved(tmp_path: Path, capsys: pytest.CaptureFixture):
    tabular(tmp_path / "run", "soft-value-iteration finite/Chain-20 --max-sweeps 3")
    assert "NOT SOLVED (residual above the tolerance 1e-06) after 3 sweeps" in capsys.readouterr().out


def test_a_policy_and_a_reference_from_files(tmp_path: Path, capsys: pytest.CaptureFixture):
    policy = np.random.default_rng(0).dirichlet(np.ones(2), 5)
    prior = np.log(np.random.default_rng(1).dirichlet(np.ones(2), 5))
    np.save(tmp_path / "policy.npy", policy)
    np.save(tmp_path / "prior.npy", prior)
    command = f"soft-policy-evaluation finite/Chain-5 --policy {tmp_path}/policy.npy --reference {tmp_path}/prior.npy"
    found = tabular(tmp_path / "run", command)
    with jax.enable_x64(True):
        exact = soft_policy_evaluation_exact(
            finite.chain(5), jax.numpy.asarray(policy), temperature=0.1, reference_log_probs=jax.numpy.asarray(prior)
        )
    np.testing.assert_allclose(found["q"], exact, atol=1e-4)
    assert "max |Q − Q by linear solve|" in capsys.readouterr().out


def test_learning_is_the_librarys_seed_by_seed(tmp_path: Path, capsys: pytest.CaptureFixture):
    command = "soft-q-lambda finite/Chain-20 --lambda 0.9 --trace tree_backup --num-seeds 3 --seed 7 --num-steps 3000"
    found = tabular(tmp_path / "run", command)
    printed = capsys.readouterr().out
    assert "max |Q − Q*|, IQM (min – max)" in printed
    assert "(IQM over 3 seeds, none diverged)" in printed
    assert [line.split()[0] for line in printed.splitlines() if line.startswith("    ")][-1] == "3,000"
    for i, seed in enumerate((7, 8, 9)):
        alone = soft_q_lambda(
            jax.random.key(seed),
            finite.chain(20),
            num_steps=3_000,
            temperature=0.1,
            lambda_=0.9,
            step_size=0.1,
            max_episode_steps=1_600,
        )
        np.testing.assert_allclose(found["q"][i], alone.q, rtol=1e-5, atol=1e-6)
    rows = pq.read_table(tmp_path / "run" / "history.parquet").to_pandas().query("step == 3000")
    distances = np.abs(found["q"] - found["q_star"]).max((1, 2))
    np.testing.assert_allclose(rows["distance"], distances, rtol=1e-5)
    np.testing.assert_array_equal(rows["seed"], [7, 8, 9])


def test_who_acts_and_how_far_returns_look(tmp_path: Path):
    np.save(tmp_path / "mu.npy", np.tile([0.25, 0.75], (6, 1)))
    command = f"n-step-soft-q finite/Chain-6 --n 2 --num-steps 500 --behaviour {tmp_path}/mu.npy"
    from_file = tabular(tmp_path / "file", f"{command} --half-life 100")
    greedy = tabular(
        tmp_path / "greedy", "soft-q-learning finite/Chain-6 --num-steps 500 --behaviour epsilon_greedy --epsilon 0.3"
    )
    settings = {"num_steps": 500, "temperature": 0.1, "step_size": 0.1, "max_episode_steps": 144}
    key, mdp = jax.random.key(0), finite.chain(6)
    fixed = Fixed(jax.numpy.tile(jax.numpy.array([0.25, 0.75]), (6, 1)))
    expected = n_step_soft_q(key, mdp, n=2, behaviour=fixed, half_life=100.0, **settings).q
    np.testing.assert_allclose(from_file["q"][0], expected, rtol=1e-5, atol=1e-6)
    sampled = tabular(tmp_path / "sampled", f"{command} --half-life 100 --backup on_policy --penalty sampled")
    on_policy = {"backup": "on_policy", "penalty": "sampled"}
    expected = n_step_soft_q(key, mdp, n=2, behaviour=fixed, half_life=100.0, **on_policy, **settings).q
    np.testing.assert_allclose(sampled["q"][0], expected, rtol=1e-5, atol=1e-6)
    expected = soft_q_lambda(key, mdp, lambda_=0.0, behaviour=EpsilonGreedy(0.3), **settings).q
    np.testing.assert_allclose(greedy["q"][0], expected, rtol=1e-5, atol=1e-6)


def test_diverged_seeds_are_counted_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture):
    command = "soft-q-lambda finite/Chain-20 --lambda 1 --trace uncorrected --step-size 0.5 --num-seeds 8"
    found = tabular(tmp_path / "run", f"{command} --num-steps 2000 --num-records 2")
    num_diverged = int((~np.isfinite(found["q"]).all((1, 2))).sum())
    assert num_diverged > 4
    printed = capsys.readouterr().out
    assert f"(IQM over 8 seeds, {num_diverged} of them DIVERGED" in printed
    assert "max |Q − Q*| inf" in printed
    rows = pq.read_table(tmp_path / "run" / "history.parquet").to_pandas()
    assert len(rows) == 16
    assert rows.query("step == 2000")["diverged"].sum() == num_diverged
    assert np.isinf(rows["distance"][rows["diverged"]]).all()


def test_states_that_nobody_can_visit_are_not_held_against_a_learner(tmp_path: Path):
    found = tabular(tmp_path / "run", "soft-q-learning finite/Taxi-v3 --num-steps 20 --num-records 1")
    row = pq.read_table(tmp_path / "run" / "history.parquet").to_pandas().iloc[0]
    errors = np.abs(found["q"][0] - found["q_star"]).max(-1)
    np.testing.assert_allclose(row["distance"], errors[reachable_states(finite.taxi())].max(), rtol=1e-5)
    assert errors[~reachable_states(finite.taxi())].min() > 0


def test_help_pages(capsys: pytest.CaptureFixture):
    assert main(["tabular"]) == 0
    overview = capsys.readouterr().out
    assert all(method in overview for method in METHODS)
    for method in METHODS:
        assert main(["tabular", method, "--help"]) == 0
        assert "--temperature" in capsys.readouterr().out


SOLVE = "soft-policy-iteration finite/Chain-5"
LAMBDA = "soft-q-lambda finite/Chain-5"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("soft-q-lamda finite/Chain-5", "unknown method 'soft-q-lamda'; did you mean soft-q-lambda"),
        ("soft-policy-iteration finite/Taxi-v9", "unknown finite MDP 'Taxi-v9'; did you mean Taxi-v3"),
        ("soft-policy-iteration gymnax/Pendulum-v1", "'gymnax/Pendulum-v1' is no finite MDP"),
        (f"{SOLVE} --temperature 0", "temperature is 0; it must be a positive number"),
        (f"{SOLVE} --discount 2", "discount is 2; it must be between 0 and 1"),
        (
            "soft-policy-iteration finite/Chain-5 --reference unifrm",
            "reference is 'unifrm'; it must be one of its names",
        ),
        (
            "soft-policy-iteration finite/Chain-5 --reference no.npy",
            "reference cannot be read from no.npy: No such file",
        ),
        ("soft-policy-evaluation finite/Chain-5 --policy {here}/bad.npy", "policy[0] sums to 2; it must sum to 1"),
        ("soft-policy-evaluation finite/Chain-5 --policy {here}/text.npy", "policy cannot be read from"),
        ("soft-value-iteration finite/Chain-5 --max-sweeps 0", "max_sweeps is 0; it must be a positive integer"),
        (f"{LAMBDA} --lambda 1.5", "lambda_ is 1.5; it must be between 0 and 1"),
        (f"{LAMBDA} --trace retrase", "unknown trace coefficient 'retrase'; did you mean retrace?"),
        (f"{LAMBDA} --step-size 0", "step_size is 0; it must be above 0 and at most 1"),
        (f"{LAMBDA} --num-steps 10 --num-records 3", "num_records is 3; it must divide the number of steps, 10"),
        (f"{LAMBDA} --num-steps 1e10", "num_steps is 10000000000; it must be a positive integer below 2^31"),
        (f"{SOLVE} --max-iterations 1e9", "max_iterations is 1e+09; it must be a positive integer, 10,000,000 at most"),
        (f"{LAMBDA} --num-steps 0", "num_steps is 0; it must be a positive integer"),
        (f"{LAMBDA} --num-seeds 0", "num_seeds is 0"),
        (f"{LAMBDA} --max-episode-steps 0", "max_episode_steps is 0"),
        (f"{LAMBDA} --behaviour unifrom", "unknown behaviour 'unifrom'; did you mean uniform?"),
        (f"{LAMBDA} --behaviour boltzmann", "behaviour boltzmann needs --behaviour-temperature"),
        (f"{LAMBDA} --behaviour epsilon_greedy", "behaviour epsilon_greedy needs --epsilon"),
        (f"{LAMBDA} --epsilon 0.1", "epsilon is that of epsilon_greedy, but behaviour is uniform"),
        (f"{LAMBDA} --behaviour epsilon_greedy --epsilon 2", "behaviour.epsilon is 2; it must be between 0 and 1"),
        ("n-step-soft-q finite/Chain-5 --n 0", "n is 0; it must be a positive integer"),
        ("n-step-soft-q finite/Chain-5 --backup tree", "unknown backup 'tree'; did you mean tree_backup?"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    command: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    np.save(tmp_path / "bad.npy", np.ones((5, 2)))
    (tmp_path / "text.npy").write_text("no array")
    out = tmp_path / "run"
    assert main(["tabular", *command.format(here=tmp_path).split(), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("jaxsoft: error: ")
    assert captured.err.count("\n") == 1
    assert not out.exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "kept.txt").write_text("mine")
    for method in ("soft-q-learning", "soft-policy-iteration"):
        assert main(["tabular", method, "finite/Chain-5", "--out", str(tmp_path)]) == 2
        assert "is not empty; nothing was changed in it" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["kept.txt"]


@pytest.mark.parametrize("command", ["eval", "plot"])
def test_other_commands_say_that_a_tabular_run_has_no_agent(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    tabular(tmp_path / "run", "soft-policy-iteration finite/Chain-5")
    capsys.readouterr()
    assert main([command, str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "is a run of `jaxsoft tabular soft-policy-iteration`, which has no agent" in error
    assert error.count("\n") == 1
