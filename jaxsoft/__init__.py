"""Maximum-entropy reinforcement learning as jit-compiled pure functions."""

from jaxsoft.envs import make_env
from jaxsoft.training import make_train

__version__ = "0.1.0"

__all__ = ["__version__", "make_env", "make_train"]
