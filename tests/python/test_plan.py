"""`longhaul plan`: predictions for links that one only thinks of."""

import json
import subprocess

import pytest

MODEL = ["--set", "model.kind=quadratic", "--set", "model.width=1000000"]


def plan(daemon, *flags):
    done = subprocess.run([daemon, "plan", *MODEL, "--json", *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_alternatives_are_told_the_cheapest_first(daemon):
    told = plan(daemon, "--peers", "3", "--up", "10 Mbit/s", "--rtt", "100 ms", "--step", "50 ms")
    rows = told["alternatives"]
    assert {row["codec"] for row in rows} == {"bf16", "int8", "int4", "ecsq-3"}
    assert [row["cost"] for row in rows] == sorted(row["cost"] for row in rows)
    for row in rows:
        steps = row["H"] * 0.05
        if row["tau_rounds"] == 0:
            assert row["round_seconds"] > steps + row["exchange_seconds"]
        else:
            assert row["round_seconds"] >= max(steps, row["exchange_seconds"])
        assert row["computing_share"] == pytest.approx(row["H"] * 0.05 / row["round_seconds"])
        # 100 rounds of 30 steps, unless the run is configured otherwise.
        assert row["run_seconds"] == pytest.approx(3000 / row["H"] * row["round_seconds"])
    # A payload leaves each peer at least once: a floor by arithmetic.
    bf16 = next(row for row in rows if row["codec"] == "bf16")
    assert bf16["payload_bytes"] >= 2_000_000
    assert bf16["exchange_seconds"] >= 2_000_000 * 8 / 10e6
    assert told["reason"].startswith(f"H = {rows[0]['H']} with {rows[0]['codec']}")


def test_slow_links_mean_longer_rounds_of_fewer_bits(daemon):
    fast = plan(daemon, "--up", "10 Gbit/s", "--rtt", "1 ms", "--step", "200 ms")["alternatives"][0]
    slow = plan(daemon, "--up", "2 Mbit/s", "--rtt", "200 ms", "--step", "50 ms")["alternatives"][0]
    assert (fast["H"], fast["codec"], fast["tau_rounds"]) == (30, "bf16", 0)
    assert slow["H"] > 100
    assert slow["codec"] == "ecsq-3"


def test_where_an_exchange_takes_about_as_long_as_the_steps_it_goes_on_beside_them(daemon):
    flags = ["--up", "12 Mbit/s", "--rtt", "100 ms", "--step", "20 ms"]
    assert plan(daemon, *flags)["alternatives"][0]["tau_rounds"] == 1
    for pinned in (["controller.choose_delay=false"], ["outer.lr=1.2"]):
        rows = plan(daemon, *flags, "--set", *pinned)["alternatives"]
        assert {row["tau_rounds"] for row in rows} == {0}


@pytest.mark.parametrize(
    "flags, word",
    [
        (["--step", "1 s"], "--parameters"),
        (["--parameters", "1000", "--step", "fast"], "fast"),
        (["--parameters", "1000", "--step", "0 s"], "--step"),
        (["--parameters", "1000", "--step", "1 s", "--up", "10"], "10"),
        (["--parameters", "1000", "--step", "1 s", "--set", "controller.most_steps=3"], "most_steps"),
    ],
)
def test_what_cannot_be_is_one_sentence(daemon, flags, word):
    done = subprocess.run([daemon, "plan", *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode in (2, 78)
    assert len(done.stderr.strip().splitlines()) == 1
    assert word in done.stderr


def test_a_table_for_people(daemon):
    flags = ["--parameters", "124000000", "--step", "350 ms", "--rows", "3"]
    done = subprocess.run([daemon, "plan", *flags], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert "124000000 parameters" in lines[0]
    assert len([line for line in lines if " s " in line and "%" in line]) == 3
