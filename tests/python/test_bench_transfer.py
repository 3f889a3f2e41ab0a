"""`longhaul bench transfer` between two processes of this machine."""

import json
import signal
import subprocess

import pytest


@pytest.fixture
def server(world):
    command = [str(world.binary), "bench", "transfer", "--serve", "--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(process.stdout.readline())["listen"]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize("way", [[], ["--down"], ["--both"]])
def test_every_repetition_is_told(world, server, way):
    told = world.run("bench", "transfer", server, "--size", "3 MiB", "--streams", 3, "--repeat", 4, "--json", *way).json
    assert told["bytes"] == 3 << 20
    assert len(told["seconds"]) == len(told["goodput_bits_per_second"]) == 4
    ways = 2 if "--both" in way else 1
    for seconds, goodput in zip(told["seconds"], told["goodput_bits_per_second"]):
        assert goodput == pytest.approx(ways * 8 * told["bytes"] / seconds)
    assert told["streams"] == 3
    assert told["rtt_seconds"] > 0
    assert told["verified"] is True
    moved = {"": ("wire_sent",), "--down": ("wire_received",), "--both": ("wire_sent", "wire_received")}
    for count in moved[way[0] if way else ""]:
        assert told[count] >= 4 * told["bytes"]


def test_a_limit_of_this_end_is_kept(world, server):
    told = world.run(
        "bench", "transfer", server, "--size", "2 MiB", "--up-limit", "20 Mbit/s", "--repeat", 2, "--json"
    ).json
    # Never faster; how much slower depends on the machine.
    assert all(rate <= 20e6 * 1.03 for rate in told["goodput_bits_per_second"])


@pytest.mark.parametrize(
    "line", [[], ["--serve", "host:1"], ["host:1", "--streams", "65"], ["host:1", "--streams", "x"]]
)
def test_usage(world, line):
    done = world.run("bench", "transfer", *line)
    assert done.code == 2 and done.sentence
