"""MuJoCo Playground as `Env`, on MuJoCo MJX itself. Source: Zakka et al. 2025, arXiv:2502.08844."""

from __future__ import annotations

import contextlib
import importlib
import io
import subprocess
from typing import Any

from jaxsoft.envs import brax
from jaxsoft.envs.mujoco import import_mjx, mute_warnings
from jaxsoft.envs.parameters import check_params
from jaxsoft.envs.suites import Suite
from jaxsoft.errors import InputError, printable
from jaxsoft.types import Env

NAMES = """
AcrobotSwingup AcrobotSwingupSparse BallInCup CartpoleBalance CartpoleBalanceSparse CartpoleSwingup
CartpoleSwingupSparse CheetahRun FingerSpin FingerTurnEasy FingerTurnHard FishSwim HopperHop HopperStand HumanoidStand
HumanoidWalk HumanoidRun PendulumSwingup PointMass ReacherEasy ReacherHard SwimmerSwimmer6 WalkerRun WalkerStand
WalkerWalk ApolloJoystickFlatTerrain BarkourJoystick BerkeleyHumanoidJoystickFlatTerrain
BerkeleyHumanoidJoystickRoughTerrain G1JoystickFlatTerrain G1JoystickRoughTerrain Go1JoystickFlatTerrain
Go1JoystickRoughTerrain Go1Getup Go1Handstand Go1Footstand H1InplaceGaitTracking H1JoystickGaitTracking Op3Joystick
SpotFlatTerrainJoystick SpotGetup SpotJoystickGaitTracking T1JoystickFlatTerrain T1JoystickRoughTerrain AlohaHandOver
AlohaSinglePegInsertion PandaPickCube PandaPickCubeOrientation PandaPickCubeCartesian PandaOpenCabinet
PandaRobotiqPushCube LeapCubeReorient LeapCubeRotateZAxis AeroCubeRotateZAxis
""".split()
"""The control suite, then robots, whose models Playground downloads when the first is built."""

_NOT_PARAMETERS = ("impl", "vision", "naconmax", "naccdmax", "njmax")
"""Settings of Playground that are left out; they belong to the physics engine that is not used, and to pictures."""


def make(name: str, **params: Any) -> Env:
    """Builds one environment.

    Args:
        name: Playground's own, for example `CartpoleBalance`.
        **params: values for Playground's settings that are single numbers, for example `episode_length=500`.

    Raises:
        InputError: there is no such setting, one of another kind, or the robot's model cannot be had.
    """
    import_mjx()
    registry: Any = importlib.import_module("mujoco_playground").registry
    config = registry.get_default_config(name)
    own = {key: x for key, x in config.items() if isinstance(x, (bool, int, float)) and key not in _NOT_PARAMETERS}
    config.update(check_params(f"playground/{name}", params, own))
    if "impl" in config:
        config.impl = "jax"
    try:
        with mute_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            env = registry.load(name, config=config)
    except (OSError, subprocess.CalledProcessError) as error:
        message = f"playground/{name} needs models of robots that cannot be had here ({error})"
        raise InputError(printable(message)) from None
    repeat = int(config.get("action_repeat", 1))
    num_steps = -(-int(config.episode_length) // repeat)
    return brax.make_env(f"playground/{name}", env, action_repeat=repeat, max_episode_steps=num_steps)


SUITE = Suite("playground", lambda: NAMES, make, slow=True)
