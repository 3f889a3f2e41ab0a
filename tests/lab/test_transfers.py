"""`longhaul bench transfer` in the lab while its connections die and its line collapses. No time is judged here:
`scripts/bench links` tells what it costs."""

import json
import pathlib
import re
import threading

import pytest
from nodes import wait_for

PAIR = """
[links]
rtt = "40 ms"
[[peer]]
name = "a"
up = "{rate}"
down = "{rate}"
[[peer]]
name = "b"
up = "{rate}"
down = "{rate}"
"""


def transfer(lab, size, *more):
    """What the measuring end tells; its exit code says that both ends have the same bytes."""
    server = lab.command("b", lab.binary, "bench", "transfer", "--serve", "--json")
    assert json.loads(server.stdout.readline())["listen"]
    words = ("bench", "transfer", lab.peers["b"]["address"], "--size", size, "--json")
    client = lab.command("a", lab.binary, *words, *more)
    out, _ = client.communicate(timeout=300)
    assert client.returncode == 0, out
    return json.loads(out)


def kill_busiest(lab):
    """Resets the bulk connection that has carried most; whether there was one."""
    found = lab.command("a", "ss", "-tinHO", "dst", lab.peers["b"]["address"], administrator=True)
    carried = []
    for line in found.communicate()[0].splitlines():
        bytes_moved = sum(map(int, re.findall(r"bytes_(?:acked|received):(\d+)", line)))
        if bytes_moved > 1 << 18:
            carried.append((bytes_moved, line.split()[3].rsplit(":", 1)[1]))
    if not carried:
        return False
    port = max(carried)[1]
    killed = lab.command("a", "ss", "-tK", "sport", "=", f":{port}", administrator=True).communicate()[0]
    if f":{port}" not in killed:
        pytest.skip("this kernel cannot kill a connection (CONFIG_INET_DIAG_DESTROY)")
    return True


@pytest.mark.parametrize("way", ["up", "--down"])
def test_a_bulk_connection_killed_every_second_costs_no_byte(lab, way):
    held = lab(PAIR.format(rate="50 Mbit/s"))
    over = threading.Event()
    told = {}

    def measure():
        try:
            told.update(transfer(held, "24 MiB", "--repeat", 2, "--streams", 4, *([] if way == "up" else [way])))
        finally:
            over.set()

    measuring = threading.Thread(target=measure)
    measuring.start()
    killed = 0
    while not over.wait(1):
        killed += kill_busiest(held)
    measuring.join()
    assert killed >= 1
    assert len(told["seconds"]) == 2
    assert told["verified"] is True


def test_loss_that_the_kernel_tells_is_that_of_the_line(lab):
    # The queue takes whatever bbr tries: what is lost of about 35,000 segments is the line's.
    line = 'rtt = "40 ms"\nloss = "1 %"\nqueue = "16 MB"'
    told = transfer(lab(PAIR.format(rate="50 Mbit/s").replace('rtt = "40 ms"', line)), "24 MiB", "--repeat", 2)
    assert 0.006 < told["loss"] < 0.02


@pytest.mark.parametrize("wanted", ["bbr", "reno"])
def test_bulk_has_the_congestion_control_that_was_asked_for(lab, wanted):
    if wanted not in pathlib.Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split():
        pytest.skip(f"this kernel does not offer {wanted}")
    held = lab(PAIR.format(rate="50 Mbit/s"))
    at = held.peers["b"]["address"]
    server = held.command("b", held.binary, "bench", "transfer", "--serve", "--json")
    assert json.loads(server.stdout.readline())["listen"]
    words = ("--size", "256 MiB", "--repeat", 1, "--streams", 3, "--congestion-control", wanted)
    held.command("a", held.binary, "bench", "transfer", at, *words)

    def used():
        """Of each connection that has sent much."""
        lines = held.command("a", "ss", "-tinHO", "dst", at, administrator=True).communicate()[0].splitlines()
        busy = [line for line in lines if int((re.findall(r"bytes_acked:(\d+)", line) or [0])[0]) > 1 << 18]
        return [set(line.split()) & {"bbr", "reno", "cubic"} for line in busy]

    wait_for(lambda: len(used()) == 3, "three connections that carry")
    assert used() == [{wanted}] * 3


def test_a_line_that_collapses_and_comes_back_kills_nobody(lab):
    # The queue holds 40 ms at 200 Mbit/s: 1.6 s at 5 Mbit/s, and control waits in it, too.
    fault = '[[fault]]\nat = "6 s"\nfor = "5 s"\nrate = "a"\nfactor = 0.025\n'
    held = lab(PAIR.format(rate="200 Mbit/s") + fault)
    told = transfer(held, "96 MiB", "--repeat", 3)
    assert len(told["seconds"]) == 3
    assert told["verified"] is True
    assert told["streams"] >= told["streams_used"] >= 1
