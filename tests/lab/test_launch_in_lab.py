"""The launcher with real daemons on emulated home lines, as the demo runs it."""

import json
import subprocess
import sys

import pytest
from nodes import PATIENCE, QUADRATIC, ROOT, clean_environment, find_binary

LINKS = ROOT / "scripts" / "demo-links.toml"


def test_daemons_meet_over_emulated_lines_and_leave_nothing(tmp_path):
    binary = str(find_binary())
    hold = [binary, "lab", "--hold", str(LINKS)]
    held = subprocess.run(hold, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if held.returncode != 0:
        pytest.skip(f"no lab here: {held.stderr.strip()}")
    config = tmp_path / "run.toml"
    config.write_text(QUADRATIC.format(admission="invite", min_peers=3, rounds=20))
    words = ["launch", str(config), "--lab", str(LINKS), "--dir", str(tmp_path / "run"), "--binary", binary, "--json"]
    faults = ["--join-late", "peer-3@round:2", "--kill", "peer-1@round:4"]
    environment = clean_environment(tmp_path, PYTHONPATH=str(ROOT / "scripts"))
    command = [sys.executable, "-m", "longhaul", *words, *faults]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] and result["peers"]["peer-1"]["killed"]
    assert {result["peers"][f"peer-{i}"]["applied"] for i in (0, 2, 3)} == {20}
    roots = [result["peers"][f"peer-{i}"]["root"] for i in (0, 2, 3)]
    assert len(set(roots)) == 1
    ready = [json.loads((tmp_path / "run" / f"peer-{i}" / "stdout.log").read_text().splitlines()[0]) for i in range(4)]
    assert [line["listen"].rpartition(":")[0] for line in ready] == [f"10.77.0.{i}" for i in range(1, 5)]
    holders = subprocess.run(["pgrep", "-f", f"^{binary} lab --hold {LINKS}"], capture_output=True, text=True)
    assert holders.stdout == ""
