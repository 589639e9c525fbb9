"""The comparison with other libraries: turns, failures and resuming, with contestants that train nothing."""

import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import peer_rounds  # noqa: E402
import peers  # noqa: E402
from peer_environments import Installation, PeerError, cause, install  # noqa: E402
from peer_rounds import Contestant, Measured, Setting  # noqa: E402

SCRIPT = """
import sys, time
print("libraries print when they are imported, too")
sys.path.insert(0, {contestants!r})
from serving import Trial, serve

def make(speed, order, fails_at=None, hangs_at=None, num_steps=1):
    print("and later")
    def run(seed):
        if seed == fails_at:
            raise RuntimeError(f"no luck with seed {{seed}}")
        if seed == hangs_at:
            time.sleep(60)
        with open(order, "a") as file:
            file.write(f"{{speed}} {{seed}}\\n")
        return speed + seed, [speed, -seed]
    return Trial(run, 1.5, "a device")

serve(make, ("numpy",))
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "contestant.py"
    path.write_text(SCRIPT.format(contestants=str(BENCHMARKS / "contestants")))
    return str(path)


def setting(script: str, order: Path, **own: dict[str, int]) -> Setting:
    """One task for contestants with settings of their own."""
    common = {"order": str(order), "num_steps": 7}
    peers = {"missing": "missing"}
    contestants = {name: Contestant(peers.get(name, "here"), script, common | mine) for name, mine in own.items()}
    return Setting("a task", contestants)


def run(task: Setting, rounds: int, folder: Path, *, goes_on: bool = False, seconds: float = 120.0) -> Measured:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    measured = Measured(folder / "measured.jsonl", goes_on)
    peer_rounds.measure(
        [task],
        rounds,
        {"here": Installation(Path(sys.executable)), "missing": PeerError("pip: nothing of this name")},
        measured,
        deadline=time.monotonic() + seconds,
        logs=logs,
        environment={},
        is_concurrent=True,
    )
    return measured


def test_contestants_take_turns_and_one_that_fails_leaves_the_others_running(script: str, tmp_path: Path) -> None:
    order = tmp_path / "order"
    task = setting(
        script,
        order,
        jaxsoft={"speed": 100},
        peer={"speed": 50},
        loser={"speed": 7, "fails_at": 1},
        missing={"speed": 1},
    )

    measured = run(task, 3, tmp_path)

    assert order.read_text().split("\n") == ["100 0", "50 0", "7 0", "100 1", "50 1", "100 2", "50 2", ""]
    assert measured.errors == {
        ("a task", "loser"): "RuntimeError: no luck with seed 1",
        ("a task", "missing"): "pip: nothing of this name",
    }
    ours, peer, lost, never = peer_rounds.rows([task], measured)
    assert ours == ("a task", "jaxsoft", "101 (100 – 102)", "", "50.0 (-2.0 – 100.0)", "7", "2", "3")
    assert peer[1:4] == ("peer", "51 (50 – 52)", "1.98 (1.96 – 2.00)")
    assert lost[2] == "7 (7 – 7)"
    assert lost[-1] == "1"
    assert never[2] == "pip: nothing of this name"
    assert peer_rounds.versions([task], measured)[0].startswith("here: numpy ")


def test_an_interrupted_comparison_goes_on_with_what_is_missing(script: str, tmp_path: Path) -> None:
    order = tmp_path / "order"
    run(setting(script, order, jaxsoft={"speed": 100}, peer={"speed": 50}), 1, tmp_path)
    order.unlink()

    changed = setting(script, order, jaxsoft={"speed": 100}, peer={"speed": 60})
    measured = run(changed, 2, tmp_path, goes_on=True)

    assert order.read_text().split("\n") == ["60 0", "100 1", "60 1", ""]
    assert sorted(measured.results(changed, "jaxsoft")) == [0, 1]


def test_a_contestant_that_hangs_ends_when_time_is_up(script: str, tmp_path: Path) -> None:
    task = setting(script, tmp_path / "order", jaxsoft={"speed": 100, "hangs_at": 0})

    begin = time.monotonic()
    measured = run(task, 2, tmp_path, seconds=3.0)

    assert time.monotonic() - begin < 10
    assert measured.errors == {("a task", "jaxsoft"): "not done when time was up"}


def test_wheels_that_are_missing_are_an_error_of_the_peer(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="no wheels in"):
        install("rejax", tmp_path, {}, tmp_path / "wheels")


def test_a_failure_of_pip_is_told_by_its_cause() -> None:
    repository = "error: subprocess-exited\n  fatal: unable to access it\nerror: subprocess-exited"
    assert cause(repository) == "fatal: unable to access it"
    python = (
        "ERROR: Ignored the following versions that require a different python version: 1.1.0 Requires-Python <3.10; "
        "1.2.0 Requires-Python >=3.7.1,<3.11\nERROR: No matching distribution found for cleanrl==1.2.0"
    )
    assert cause(python) == "No matching distribution found for cleanrl==1.2.0, Requires-Python >=3.7.1,<3.11"


@pytest.mark.parametrize("settings", [peers.SETTINGS, peers.GPU_SETTINGS])
def test_all_contestants_of_a_setting_do_the_same_task(settings: list[Setting]) -> None:
    assert len({each.name for each in settings}) == len(settings)
    for each in settings:
        ours = each.contestants["jaxsoft"].settings
        for contestant in each.contestants.values():
            common = contestant.settings.keys() - {"library", "num_steps"}
            assert {name: ours[name] for name in common} == {name: contestant.settings[name] for name in common}
