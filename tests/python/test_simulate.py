"""Scenarios that take too long with sanitizers, in virtual time, by the binary that users have."""

import json
import subprocess

import pytest
from nodes import ROOT, find_binary


@pytest.mark.parametrize("name", ("fragments", "deco", "collapse", "sites_of_four"))
def test_the_scenario_holds(name):
    command = [str(find_binary()), "sim", str(ROOT / "sim" / "scenarios" / f"{name}.toml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["ok"]
    assert outcome["rounds"] > 0
