"""The committed scenarios with real daemons in the lab, and how well the simulator predicts them."""

import json
import os
import subprocess

import pytest
from nodes import ROOT, clean_environment, find_binary

SCENARIOS = ROOT / "tests" / "sim" / "scenarios"


def play(world: str, name: str, folder) -> dict:
    command = [str(find_binary()), world, str(SCENARIOS / f"{name}.toml"), "--json"]
    if world == "lab":
        command += ["--folder", str(folder / "lab")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=clean_environment(folder))
    if done.returncode == 69 or (done.returncode and not done.stdout and "the lab" in done.stderr):
        pytest.skip(f"no lab here: {done.stderr.strip()}")
    assert done.stdout, done.stderr
    outcome = json.loads(done.stdout)
    if world == "lab" and not outcome["network"]["kept_up"]:
        pytest.skip(f"this machine is too busy for the lab: {outcome['network']}")
    assert outcome["ok"], done.stdout + done.stderr
    assert ("trace_hash" in outcome) == (world == "sim")
    assert done.returncode == 0
    return outcome


def skip_when_busy() -> None:
    """The daemons' share of a busy machine's time would be measured, not their network."""
    load = os.getloadavg()[0]
    if load > os.cpu_count():
        pytest.skip(f"this machine is too busy to compare times: load {load:.0f}")


# Lab by simulation, within so much: sim/README.md has what was measured. Of BBR's probing much is chance, so the best
# of a few runs counts.
CLOSE = 0.1
ATTEMPTS = 4


@pytest.mark.parametrize("name", ["pair", "loss", "trace", "unequal", "sites", "homes"])
def test_simulated_and_real_rounds_take_the_same_time(name, tmp_path):
    predicted = play("sim", name, tmp_path)
    ratios = []
    for attempt in range(ATTEMPTS):
        skip_when_busy()
        measured = play("lab", name, tmp_path / str(attempt))
        assert predicted["rounds"] == measured["rounds"]
        assert len({peer["root"] for peer in measured["peers"].values()}) == 1
        ratios.append(measured["round_seconds"] / predicted["round_seconds"])
        if abs(ratios[-1] - 1) <= CLOSE:
            return
    skip_when_busy()
    pytest.fail(f"lab / simulated: {', '.join(f'{r:.2f}' for r in ratios)}")


def test_faults_with_real_daemons(tmp_path):
    outcome = play("lab", "faults", tmp_path)
    peers = outcome["peers"]
    assert peers["m-4"]["ended"] == "taken out by the scenario"
    assert {peers[name]["applied"] for name in ("founder", "m-1", "m-2", "m-3")} == {40}


def test_chaos_with_real_daemons(tmp_path):
    outcome = play("lab", "chaos", tmp_path)
    assert all(peer["alive"] for peer in outcome["peers"].values())
    events = [json.loads(line) for path in tmp_path.glob("lab/*/events.jsonl") for line in path.open()]
    offices = [e["node"] for e in events if e["event"] == "coordinator" and e["self"]]
    assert len(offices) > 3, "whoever coordinated was killed, stopped and cut off, and each time another one took over"
