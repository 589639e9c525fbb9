"""Run directories: what a training writes, reads and goes on from.

A run from Python is a loop over its progress:

    for progress in train(Path("runs/x"), RunConfig(env_id, make_config("sac", env_id, settings), num_seeds=8)):
        print(progress.timestep)

It is what `jaxsoft train` does.
"""

from jaxsoft.runs.config import RunConfig, read_config
from jaxsoft.runs.driver import Interrupted, Progress, resume, train

__all__ = ["Interrupted", "Progress", "RunConfig", "read_config", "resume", "train"]
