"""How fast are other libraries at the same task, with the same network, batches and updates, and what do they reach?

    python benchmarks/peers.py                   # installs the peers; then 20 minutes at most; writes peers.md
    python benchmarks/peers.py --quick           # whether everything still runs: tiny trainings; writes nothing
    python benchmarks/peers.py --only CartPole   # the settings that have this in their name; writes nothing
    python benchmarks/peers.py --resume          # goes on with an earlier call that was interrupted
    python benchmarks/peers.py --gpu             # on a GPU: 8 minutes at most, installation excluded; peers_gpu.md

Each contestant is a process that compiles once and then trains once in each round, with other seeds; contestants take
turns, so that a machine whose speed drifts drifts for all. The clock runs while it trains, and nothing else is timed.
Its final policy, without noise, then plays 32 episodes for each seed, so that nobody is fast by doing less. What does
not install or run is a row with its error.

`--gpu` runs rejax's published benchmark (SAC on brax/hopper, 128 environments and 128 updates a step, 1 agent and 300,
for fewer steps than its million; published are 2,100 and 115,000 steps/s on an A100), PQN's minute of MinAtar with 1
seed and with 10 (published: 170,000 and 330,000 steps/s at least on an A40), and more seeds of the settings for a CPU.
Its processes compile side by side, and give memory back when it is not their turn. It needs no network:

    python benchmarks/peers.py --collect wheels                     # where there is one: 12 MB
    python benchmarks/peers.py --gpu --wheels wheels --out FOLDER   # there, if jaxsoft and JAX for CUDA are installed

purejaxql is installed from its repository: `--source purejaxql=git+file:///some/clone@47af6d7` takes another place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peer_environments import PEERS, PeerError, collect, install
from peer_rounds import COLUMNS, OURS, Contestant, Measured, Setting, measure, rows, versions
from rich.table import Table
from rounds import ROOT, make_console, make_parser

SCRIPTS = {
    "rejax": ("rejax", "rejax_sac.py"),
    "sbx": ("stable", "stable_sac.py"),
    "Stable-Baselines3": ("stable", "stable_sac.py"),
    "skrl": ("skrl", "skrl_sac.py"),
    "Brax": ("brax", "brax_sac.py"),
    "rejax's PQN": ("rejax", "rejax_pqn.py"),
    "purejaxql's PQN": ("purejaxql", "purejaxql_pqn.py"),
}
"""Peers and scripts of the contestants; the peers that no contestant has are only installed."""

OWN = {"sbx": {"library": "sbx"}, "Stable-Baselines3": {"library": "sb3"}}


def sac(name: str, env_id: str, peers: str, num_steps: int, size: tuple[int, int], **more: Any) -> Setting:
    """SAC with one update per environment step; `size` is of the hidden layers and the batch."""
    task = {"env_id": env_id, "num_seeds": 1, "num_envs": 1, "learning_starts": 256, "learning_rate": 1e-3}
    task |= {"num_steps": num_steps, "hidden_sizes": [size[0], size[0]], "batch_size": size[1]} | more
    task["updates_per_step"] = task["num_envs"]
    preset_off = {"polyak": 0.995, "discount": 0.99, "normalise_obs": False}  # as the peers have it
    return make_setting(f"SAC, {name}", task, peers, {"agent": "sac", **preset_off})


def q_learning(name: str, env_id: str, peers: str, num_steps: int, num_envs: int, **more: Any) -> Setting:
    """Soft Q(λ) on rollouts, beside PQN; step sizes are constant, as rejax has them."""
    task = {"env_id": env_id, "num_seeds": 1, "num_envs": num_envs, "learning_rate": 5e-4, "num_epochs": 2}
    return make_setting(
        f"Soft Q(λ), {name}",
        task | {"num_steps": num_steps} | more,
        peers,
        {"agent": "soft_q", "decay_learning_rate": False},
    )


def make_setting(name: str, task: dict[str, Any], peers: str, ours: dict[str, Any]) -> Setting:
    """The task for jaxsoft and for the peers, separated by commas; a number in brackets is one's number of steps."""
    contestants = {OURS: Contestant("jaxsoft", "jaxsoft_train.py", {**task, **ours})}
    for each in peers.split(", "):
        peer, _, steps = each.rstrip(")").partition(" (")
        own = OWN.get(peer, {}) | ({"num_steps": int(steps)} if steps else {})
        contestants[peer] = Contestant(*SCRIPTS[peer], {**task, **own})
    return Setting(name, contestants)


def count(num_seeds: int) -> str:
    return f"{num_seeds:,} seed{'s' if num_seeds > 1 else ''}"


PENDULUM, HOPPER, CARTPOLE, BREAKOUT = (
    "gymnax/Pendulum-v1",
    "brax/hopper",
    "gymnax/CartPole-v1",
    "gymnax/Breakout-MinAtar",
)
LARGE, SMALL = (256, 256), (64, 64)
PQNS = "rejax's PQN, purejaxql's PQN"
VECTORS: dict[str, Any] = {"rollout_length": 32, "num_minibatches": 4, "hidden_sizes": [64, 64], "lambda_": 0.9}
IMAGES: dict[str, Any] = {"rollout_length": 32, "num_minibatches": 32, "hidden_sizes": [128], "lambda_": 0.65}
ALL = "rejax, sbx, skrl, Stable-Baselines3"
SETTINGS = [
    sac("Pendulum, 1 seed, (256, 256), batch 256, replay 100k", PENDULUM, ALL, 3500, LARGE, replay_capacity=100_000),
    sac("Pendulum, 8 seeds, (64, 64), batch 64, replay 10k", PENDULUM, "rejax", 4000, SMALL, replay_capacity=10_000,
        num_seeds=8),
    sac("Pendulum, 8 seeds, (64, 64), batch 64, replay 1M", PENDULUM, "rejax (150)", 4000, SMALL,
        replay_capacity=1_000_000, num_seeds=8, learning_starts=64),
    sac("brax/hopper, 1 seed, (256, 256), batch 256, replay 100k", HOPPER, "rejax, Brax", 750, LARGE,
        replay_capacity=100_000, backend="spring"),
    q_learning("CartPole, 1 seed, 32 × 32 steps", CARTPOLE, PQNS, 512 * 1024, 32, **VECTORS),
    q_learning("CartPole, 16 seeds, 32 × 32 steps", CARTPOLE, PQNS, 64 * 1024, 32, num_seeds=16, **VECTORS),
    q_learning("MinAtar Breakout, 1 seed, 128 × 32 steps", BREAKOUT, "purejaxql's PQN", 10 * 4096, 128, **IMAGES),
]  # fmt: skip

PUBLISHED: dict[str, Any] = {
    "num_envs": 128, "learning_starts": 1280, "replay_capacity": 1_000_000, "backend": "positional"
}  # fmt: skip
WIDE: dict[str, Any] = VECTORS | {"rollout_length": 64, "num_minibatches": 16}
GPU_SETTINGS = [
    sac("brax/hopper as rejax published it, 1 agent", HOPPER, "rejax", 256 * 128, (64, 128), **PUBLISHED),
    sac("brax/hopper as rejax published it, 300 agents", HOPPER, "rejax", 64 * 128, (64, 128), num_seeds=300,
        **PUBLISHED),
    q_learning("MinAtar Breakout, 1 seed", BREAKOUT, "purejaxql's PQN", 2440 * 4096, 128, **IMAGES),
    q_learning("MinAtar Breakout, 10 seeds", BREAKOUT, "purejaxql's PQN", 610 * 4096, 128, num_seeds=10, **IMAGES),
    *(
        q_learning(f"CartPole, {count(n)}, 64 × 64 steps", CARTPOLE, PQNS if n == 64 else "rejax's PQN",
                   64 * 64 * turns, 64, num_seeds=n, **WIDE)
        for n, turns in ((1, 200), (64, 100), (1024, 40))
    ),
    *(
        sac(f"Pendulum, {count(n)}, (64, 64), batch 64, replay 10k", PENDULUM, "rejax", steps, SMALL, num_seeds=n,
            replay_capacity=10_000)
        for n, steps in ((1, 5000), (1024, 2000))
    ),
]  # fmt: skip


def map_tasks(settings: list[Setting], change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Setting]:
    """The settings with each contestant's own changed."""
    return [
        setting._replace(
            contestants={
                name: each._replace(settings=change(each.settings)) for name, each in setting.contestants.items()
            }
        )
        for setting in settings
    ]


def tiny(task: dict[str, Any]) -> dict[str, Any]:
    """Two turns, or some updates, of two seeds at most."""
    small = {"num_seeds": min(task["num_seeds"], 2), "num_envs": min(task["num_envs"], 32)}
    if "rollout_length" in task:
        return task | small | {"num_steps": 2 * small["num_envs"] * task["rollout_length"]}
    per_step = min(task["updates_per_step"], 2)
    return task | small | {"num_steps": 96, "replay_capacity": 2_048, "updates_per_step": per_step}


def main() -> None:
    parser = make_parser(__doc__, 3)
    parser.add_argument("--gpu", action="store_true", help="the settings for a GPU")
    parser.add_argument("--only", default="", help="part of a setting's name")
    parser.add_argument("--quick", action="store_true", help="two rounds of tiny trainings")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier call measured")
    parser.add_argument("--minutes", type=float, help="after which nothing begins or goes on (20; --gpu: 8)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".peers", help="of the peers' environments and results")
    parser.add_argument("--out", type=Path, help="a folder for the table and its JSON lines; else beside this script")
    parser.add_argument("--source", action="append", default=[], metavar="PEER=PLACE", help="what pip is given instead")
    parser.add_argument("--wheels", type=Path, help="a folder made by --collect, instead of environments")
    parser.add_argument("--collect", type=Path, help="only put wheels for --wheels into this folder")
    parser.add_argument("--collect-python", default="3.12", help="the version of Python that they are for")
    options = parser.parse_args()
    if bad := [each for each in options.source if "=" not in each]:
        parser.error(f"--source is {bad[0]}; it must be PEER=PLACE")
    sources = dict(each.split("=", 1) for each in options.source)
    if options.collect:
        try:
            collect(options.collect, sources, options.collect_python)
        except PeerError as error:
            raise SystemExit(f"error: {error}") from None
        return
    settings = [each for each in (GPU_SETTINGS if options.gpu else SETTINGS) if options.only in each.name]
    settings = map_tasks(settings, tiny) if options.quick else settings
    rounds = 2 if options.quick else options.rounds
    name = "peers_gpu" if options.gpu else "peers"
    options.folder = options.folder.resolve()  # contestants run in another directory
    logs = options.folder / "logs" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    logs.mkdir(parents=True)

    used = {each.peer for setting in settings for each in setting.contestants.values()}
    only_installed = [] if options.gpu or options.only else [peer for peer in PEERS if peer not in used]
    installations: dict[str, Any] = {}
    for peer in (*sorted(used), *only_installed):
        try:
            installations[peer] = install(peer, options.folder, sources, options.wheels)
        except PeerError as error:
            installations[peer] = error
            print(f"{peer}: {error}", flush=True)

    measured = Measured(options.folder / f"{name}{'_quick' if options.quick else ''}.jsonl", options.resume)
    environment = {"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"} if options.gpu else {}
    deadline = time.monotonic() + 60 * (options.minutes or (8 if options.gpu else 20))
    for group in [settings] if options.gpu else [[setting] for setting in settings]:
        measure(
            group,
            rounds,
            installations,
            measured,
            deadline=deadline,
            logs=logs,
            environment=environment,
            is_concurrent=options.gpu,
        )
    table = rows(settings, measured)
    for peer in only_installed:
        why = installations[peer] if isinstance(installations[peer], PeerError) else "installs; nothing here runs it"
        table.append(("", peer, str(why), *5 * ("",)))
    lines = versions(settings, measured)
    show(table, lines)
    page = markdown(table, lines, "--gpu" if options.gpu else "")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{name}.md").write_text(page)
        measured.copy(options.out / f"{name}.jsonl")
    elif not (options.quick or options.only):
        Path(__file__).with_name(f"{name}.md").write_text(page)


def show(table: list[tuple[str, ...]], lines: list[str]) -> None:
    console, printed = make_console(), Table()
    for column in COLUMNS:
        printed.add_column(column, justify="left" if column in ("setting", "library") else "right")
    for row in table:
        printed.add_row(*row)
    console.print(printed)
    for line in lines:
        console.print(line)


def markdown(table: list[tuple[str, ...]], lines: list[str], flag: str) -> str:
    """The page; an error takes the place of a speed."""
    head = (
        "Environment steps per second of all seeds, median of the rounds (min – max), each library in turn; with one "
        "update per environment step where nothing else is said. The return is that of the final policies without "
        "noise, 32 episodes each, median (min – max) of all seeds in all rounds, after so many steps of each seed. "
        f"{os.cpu_count()} cores. Made by `{f'python benchmarks/peers.py {flag}'.strip()}`."
    )
    cells = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    columns = "| " + " | ".join(COLUMNS) + " |\n|---|---|" + "--:|" * (len(COLUMNS) - 2)
    return "\n".join([head, "", columns, *cells, "", *(f"* {line}" for line in lines)]) + "\n"


if __name__ == "__main__":
    main()
