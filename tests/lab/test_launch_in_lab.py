"""The launcher with real daemons on emulated home lines, as the demo runs it."""

import json
import subprocess
import sys

import pytest
from nodes import PATIENCE, QUADRATIC, ROOT, clean_environment, find_binary

LINKS = ROOT / "scripts" / "demo-links.toml"


@pytest.fixture
def launched(tmp_path):
    """Calls the launcher with more words: four daemons, one of them late, on a quadratic."""
    binary = str(find_binary())
    hold = [binary, "lab", "--hold", str(LINKS)]
    held = subprocess.run(hold, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if held.returncode != 0:
        pytest.skip(f"no lab here: {held.stderr.strip()}")

    def call(rounds: int, *words: str) -> subprocess.CompletedProcess:
        config = tmp_path / "run.toml"
        config.write_text(QUADRATIC.format(admission="invite", min_peers=3, rounds=rounds))
        own = ["launch", str(config), "--lab", str(LINKS), "--dir", str(tmp_path / "run"), "--binary", binary]
        environment = clean_environment(tmp_path, PYTHONPATH=str(ROOT / "scripts"))
        command = [sys.executable, "-m", "longhaul", *own, "--join-late", "peer-3@round:2", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, env=environment)
        assert done.returncode == 0, done.stderr
        holders = subprocess.run(["pgrep", "-f", f"^{binary} lab --hold {LINKS}"], capture_output=True, text=True)
        assert holders.stdout == ""
        return done

    return call


def test_daemons_meet_over_emulated_lines_and_leave_nothing(tmp_path, launched):
    result = json.loads(launched(20, "--json", "--kill", "peer-1@round:4").stdout)
    assert result["ok"] and result["peers"]["peer-1"]["killed"]
    assert {result["peers"][f"peer-{i}"]["applied"] for i in (0, 2, 3)} == {20}
    roots = [result["peers"][f"peer-{i}"]["root"] for i in (0, 2, 3)]
    assert len(set(roots)) == 1
    ready = [json.loads((tmp_path / "run" / f"peer-{i}" / "stdout.log").read_text().splitlines()[0]) for i in range(4)]
    assert [line["listen"].rpartition(":")[0] for line in ready] == [f"10.77.0.{i}" for i in range(1, 5)]


def test_the_founder_is_killed_and_the_others_say_that_they_still_train(tmp_path, launched):
    done = launched(90, "--kill", "peer-0@round:30")
    assert "peer-0 was killed (signal 9)" in done.stdout
    assert "coordinates now: still training" in done.stdout
    commits = {}
    for i in (1, 2, 3):
        [events] = (tmp_path / "run" / f"peer-{i}").rglob("events.jsonl")
        seen = [json.loads(line) for line in events.read_text().splitlines()]
        commits[i] = {e["round"]: e["root"] for e in seen if e["event"] == "round_committed"}
    assert all(max(seen) == 90 for seen in commits.values())
    for number in range(31, 91):
        assert len({seen[number] for seen in commits.values() if number in seen}) == 1
