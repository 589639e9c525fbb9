"""How fast is Soft Q(λ) on rollouts beside rejax's PQN, in one run? `python benchmarks/soft_q.py`.

The same network (two hidden layers of 64 with layer normalisation), environments, rollouts, epochs and minibatches on
CartPole-v1. A process compiles, then trains twice and reports the faster. Needs about 5 minutes on 2 cores.
"""

from __future__ import annotations

from rounds import make_parser
from side_by_side import Contestant, Setting, compare, make_console


def setting(num_seeds: int, total_timesteps: int) -> Setting:
    """32 environments, 32 steps, 2 epochs, 4 minibatches."""
    arguments = (num_seeds, 32, 32, 2, 4, total_timesteps)
    return Setting(
        f"{num_seeds} seed{'s' if num_seeds > 1 else ''}",
        {
            "jaxsoft": Contestant("jaxsoft", "jaxsoft_soft_q.py", arguments),
            "rejax PQN": Contestant("rejax", "rejax_pqn.py", arguments, wanted=1.0),
        },
    )


SETTINGS = [setting(1, 512 * 1024), setting(16, 64 * 1024)]


def main() -> None:
    rounds = make_parser(__doc__, 5).parse_args().rounds
    compare("Soft Q(λ) on CartPole-v1", SETTINGS, rounds, make_console())


if __name__ == "__main__":
    main()
