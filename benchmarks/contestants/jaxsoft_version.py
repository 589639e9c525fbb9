"""One program with whatever jaxsoft is on the path, by its public names only: compiles, trains twice; one JSON line."""

import json
import sys
import time
from pathlib import Path
from typing import Any


def train(agent: str, env_id: str, num_seeds: int, num_turns: int, settings: dict[str, Any]) -> dict[str, float]:
    """Seconds of compilation, and milliseconds of a turn of all seeds in the faster of two trainings."""
    import jax
    import jax.numpy as jnp
    from timing import measure

    import jaxsoft

    jaxsoft.use_all_cores()
    learn = jaxsoft.make_train(agent, jaxsoft.make_env(env_id), eval_every=0, **settings)
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    seconds = measure(jaxsoft.spread(learn), [keys, keys])
    return {"compile": seconds["trace"] + seconds["compile"], "turn": 1e3 * seconds["call"] / num_turns}


def main(tree: str, program: str) -> None:
    start = time.perf_counter()
    import jaxsoft

    seconds = {"import": time.perf_counter() - start}
    if not Path(jaxsoft.__file__).resolve().is_relative_to(Path(tree).resolve()):
        raise SystemExit(f"{jaxsoft.__file__} is imported, which is not in {tree}")
    print(json.dumps(train(**json.loads(program)) if program else seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
