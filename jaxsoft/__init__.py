"""Maximum-entropy reinforcement learning as jit-compiled pure functions.

make_env     an environment by name; `register_env` adds one's own, `check_env` says what is wrong with it
Env          an environment is `Env(EnvSpec(…), reset, step)`, with a `Box` or `Discrete` and `make_time_step`
from_gymnax, from_brax  an environment that one has already, as an `Env`
AgentKind    an agent of one's own; `register_agent` gives it a name
train        many seeds of an agent, perhaps a sweep; its result has metrics, policies, evaluations and a plot
open_run     such a result of a run directory; `loggers` get the reports of a training
make_train   a whole training run as a pure function of a key
make_offline_train  the same from a fixed data set; `record` makes one
load_policy  a trained policy from a run directory, as a plain function of observations
load_reference  the same as a reference policy for another run
spread       many seeds of a function, divided among devices; `use_all_cores` makes each core of a CPU one
"""

from jaxsoft.agents import register_agent
from jaxsoft.cpu import use_all_cores
from jaxsoft.envs import check_env, from_brax, from_gymnax, make_env, register_env
from jaxsoft.fleet.devices import spread
from jaxsoft.reports import loggers
from jaxsoft.results import open_run, train
from jaxsoft.runs.policies import load_policy, load_reference
from jaxsoft.training.loop import make_train
from jaxsoft.training.offline import make_offline_train, record
from jaxsoft.types import AgentKind, Box, Discrete, Env, EnvSpec, make_time_step

__version__ = "0.1.0"

__all__ = [
    "AgentKind",
    "Box",
    "Discrete",
    "Env",
    "EnvSpec",
    "__version__",
    "check_env",
    "from_brax",
    "from_gymnax",
    "load_policy",
    "load_reference",
    "loggers",
    "make_env",
    "make_offline_train",
    "make_time_step",
    "make_train",
    "open_run",
    "record",
    "register_agent",
    "register_env",
    "spread",
    "train",
    "use_all_cores",
]
