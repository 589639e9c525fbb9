"""How fast is SAC beside its peers, in one run? `python benchmarks/sac.py`.

A process compiles, then trains twice and reports the faster. Needs about 20 minutes on 2 cores.
"""

from __future__ import annotations

import tempfile

import numpy as np
from rich.console import Console
from rich.table import Table
from rounds import make_parser
from side_by_side import Contestant, Setting, compare, make_console, run_contestant

PENDULUM, HOPPER = "gymnax/Pendulum-v1", "brax/hopper"


def sac_setting(
    name: str,
    arguments: tuple[int, int, int, int],
    updates: dict[str, int],
    wanted: dict[str, float],
    env_id: str = PENDULUM,
) -> Setting:
    """Seeds, hidden, batch size and replay capacity; updates per contestant keep each at a few seconds."""
    contestants = {}
    for contestant, num_updates in updates.items():
        if contestant in ("sbx", "sb3"):
            peer, script, given = "stable", "stable_sac.py", (contestant, *arguments[1:], num_updates)
        elif contestant == "brax":
            peer, script, given = contestant, "brax_sac.py", (env_id, *arguments[1:], num_updates)
        elif contestant == "rejax":
            peer, script, given = contestant, "rejax_sac.py", (*arguments, num_updates)
        else:
            peer, script, given = contestant, "jaxsoft_sac.py", (env_id, *arguments, num_updates)
        contestants[contestant] = Contestant(peer, script, given, wanted.get(contestant))
    return Setting(name, contestants)


SETTINGS = [
    sac_setting(
        "1 seed, hidden (256, 256), batch 256, replay 100k",
        (1, 256, 256, 100_000),
        {"jaxsoft": 1500, "rejax": 1500, "sbx": 1000, "sb3": 700},
        {"rejax": 1.4, "sbx": 1.15, "sb3": 2.5},
    ),
    sac_setting(
        "8 seeds, hidden (64, 64), batch 64, replay 10k",
        (8, 64, 64, 10_000),
        {"jaxsoft": 5000, "rejax": 5000},
        {"rejax": 1.5},
    ),
    sac_setting(
        "8 seeds, hidden (64, 64), batch 64, replay 1M",
        (8, 64, 64, 1_000_000),
        {"jaxsoft": 5000, "rejax": 250},
        {"rejax": 25.0},
    ),
    sac_setting(
        "brax/hopper, 1 seed, hidden (256, 256), batch 256, replay 100k",
        (1, 256, 256, 100_000),
        {"jaxsoft": 1500, "brax": 1000},
        {"brax": 1.5},
        HOPPER,
    ),
]


def starts(rounds: int, console: Console) -> None:
    """Measures compilation and the time to the first step, without and with the persistent cache."""
    whole_program = Contestant("jaxsoft", "jaxsoft_sac.py", (PENDULUM, 8, 64, 64, 10_000, 100))
    first_step = Contestant("jaxsoft", "jaxsoft_start.py", ())
    compiled = [run_contestant(whole_program)["compile"] for _ in range(rounds)]
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            environment = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
            cold.append(run_contestant(first_step, **environment)["first_step"])
            warm.append(run_contestant(first_step, **environment)["first_step"])
    table = Table(title=f"starting, seconds, {rounds} rounds, 8 seeds")
    for column in ("what", "median", "min – max", "wanted"):
        table.add_column(column, justify="left" if column == "what" else "right")
    rows = [
        ("XLA compilation of the whole program", compiled, "≤ 8"),
        ("the command's start to its first step, cold", cold, ""),
        ("the same from the cache", warm, "≤ 3"),
    ]
    for what, seconds, wanted in rows:
        table.add_row(what, f"{np.median(seconds):.1f}", f"{min(seconds):.1f} – {max(seconds):.1f}", wanted)
    console.print(table)


def main() -> None:
    parser = make_parser(__doc__, 5)
    parser.add_argument("--only", type=int, choices=range(len(SETTINGS)), help="one setting by its number")
    parser.add_argument("--skip-starts", action="store_true")
    options = parser.parse_args()
    console = make_console()
    settings = SETTINGS if options.only is None else [SETTINGS[options.only]]
    ours = compare("SAC, on Pendulum-v1 where nothing else is said", settings, options.rounds, console)
    if len(settings) == len(SETTINGS):
        small, large = (np.median(ours[setting.name]) for setting in settings[1:3])
        console.print(f"our speed with a replay of 1M over that with 10k: {large / small:.2f} (wanted ≥ 0.8)")
    if not options.skip_starts:
        starts(options.rounds, console)


if __name__ == "__main__":
    main()
