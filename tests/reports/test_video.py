"""Films show the episode that was played, and what cannot be filmed is said before anything is played."""

import base64
import json
import re
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from PIL.ImageSequence import Iterator

import jaxsoft
from jaxsoft.errors import InputError
from jaxsoft.reports.video import Episode, check_film, film, play


def always(action: Any) -> Any:
    return lambda obs: np.asarray(action)


def viewed(page: Path) -> dict[str, Any]:
    """What Brax's viewer is given: its system, with the states."""
    text = page.read_text()
    (packed,) = [part for part in re.findall(r'"([A-Za-z0-9+/=]{200,})"', text) if part.startswith("eJ")]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_an_episode_is_played_to_its_end_and_becomes_a_gif(tmp_path: Path) -> None:
    env = jaxsoft.make_env("gymnax/CartPole-v1")
    episode = play(always(1), env, seed=3)  # type: ignore[arg-type]
    num_steps = len(episode.states) - 1
    assert episode.returns == list(range(num_steps + 1))  # a reward of 1 for each step
    assert 5 < num_steps < 20  # pushed one way the pole falls
    assert abs(episode.states[-1].theta) > 12 * 2 * np.pi / 360 > abs(episode.states[-2].theta)
    film(tmp_path / "film.gif", episode, env.spec.id)
    with Image.open(tmp_path / "film.gif") as picture:
        frames = [(frame.info["duration"], np.asarray(frame.convert("RGB"), float)) for frame in Iterator(picture)]
    assert sum(milliseconds for milliseconds, _ in frames) == 50 * (num_steps + 1)  # equal pictures are shown longer
    first, last = frames[0][1], frames[-1][1]
    assert first.std() > 1
    assert np.abs(first - last).max() > 50


def test_an_episode_is_played_with_products_in_float32_as_in_training() -> None:
    env, traced_with = jaxsoft.make_env("gymnax/CartPole-v1"), []

    def step(*arguments: Any) -> Any:
        traced_with.append(jax.config.values["jax_default_matmul_precision"])
        return env.step(*arguments)

    play(always(1), env._replace(step=step), seed=3)  # type: ignore[arg-type]
    assert traced_with == ["float32"]


def test_a_minatar_episode_is_drawn_by_gymnax(tmp_path: Path) -> None:
    env = jaxsoft.make_env("gymnax/Breakout-MinAtar")
    state = jax.device_get(env.reset(jax.random.key(0))[0])
    film(tmp_path / "film.gif", Episode([state] * 2, [0.0, 1.0]), env.spec.id)
    with Image.open(tmp_path / "film.gif") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 1


def test_a_mujoco_task_becomes_a_page_with_the_bodies_where_its_joints_put_them(tmp_path: Path) -> None:
    heights = (1.25, 0.8)
    states = [(SimpleNamespace(qpos=np.array([0.3, height, 0, 0, 0, 0])), step) for step, height in enumerate(heights)]
    film(tmp_path / "film.html", Episode(states, [0.0, 1.0]), "mjx/Hopper-v5?max_episode_steps=7")
    torsos = [pose["pos"][0] for pose in viewed(tmp_path / "film.html")["states"]["x"]]
    np.testing.assert_allclose(torsos, [[0.3, 0, height] for height in heights], atol=1e-6)


@pytest.mark.parametrize(("name", "num_positions"), [("Humanoid-v5", 24), ("Pusher-v5", 11)])
def test_mujoco_tasks_that_brax_does_not_simulate_become_pages(name: str, num_positions: int, tmp_path: Path) -> None:
    state = SimpleNamespace(qpos=np.array([0, 0, 1.5, 1, *[0] * (num_positions - 4)]))
    film(tmp_path / "film.html", Episode([(state, 0)], [0.0]), f"mjx/{name}")
    (pose,) = viewed(tmp_path / "film.html")["states"]["x"]
    if name == "Humanoid-v5":
        np.testing.assert_allclose(pose["pos"][0], [0, 0, 1.5], atol=1e-6)
    assert np.ptp(pose["pos"], axis=0).min() > 0.05


def test_a_brax_episode_becomes_a_page(tmp_path: Path) -> None:
    env = jaxsoft.make_env("brax/inverted_pendulum", action_repeat=2)
    state = jax.device_get(env.reset(jax.random.key(0))[0])
    film(tmp_path / "film.html", Episode([state], [0.0]), env.spec.id)
    (pose,) = viewed(tmp_path / "film.html")["states"]["x"]
    np.testing.assert_allclose(pose["pos"], state[0].pipeline_state.x.pos, atol=1e-6)


@pytest.mark.parametrize(
    ("env_id", "file", "message"),
    [
        ("finite/Chain-5", "film.gif", "finite/Chain-5 cannot be filmed: there is no renderer for finite"),
        ("gymnax/CartPole-v1", "film.html", r"video is .*film\.html; a film of gymnax/CartPole-v1 is a \.gif file"),
        ("brax/hopper", "film.mp4", r"a film of brax/hopper is a \.html file"),
        ("gymnax/CartPole-v1", "nowhere/film.gif", "there is no folder .*nowhere"),
        ("gymnax/CartPoll-v1", "film.gif", "unknown environment"),
        ("gymnax/Catch-bsuite", "folder.gif", "folder.gif, which is not a regular file"),
        ("gymnax/DeepSea-bsuite", "film.gif", "DeepSea-bsuite cannot be filmed; of gymnax's, these can: Acrobot-v1, "),
    ],
)
def test_what_cannot_be_filmed_is_said_at_once(tmp_path: Path, env_id: str, file: str, message: str) -> None:
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(InputError, match=message):
        check_film(tmp_path / file, env_id)
