"""`longhaul bench allreduce` on this machine: every mode and codec, one result for all."""

import json
import subprocess

import pytest


def allreduce(daemon, peers, *flags):
    """Runs a host and its guests; their JSON reports, the host's first."""
    host = subprocess.Popen(
        [daemon, "bench", "allreduce", "--listen", "127.0.0.1:0", "--peers", str(peers), "--json", *flags],
        stdout=subprocess.PIPE, text=True)
    everybody = [host]
    try:
        at = json.loads(host.stdout.readline())["listen"]
        for _ in range(peers - 1):
            everybody.append(subprocess.Popen(
                [daemon, "bench", "allreduce", at, "--listen", "127.0.0.1:0", "--json"],
                stdout=subprocess.PIPE, text=True))
        lines = [p.communicate(timeout=120)[0] for p in everybody]
        assert [p.returncode for p in everybody] == [0] * peers
        return [json.loads(line) for line in lines]
    finally:
        for p in everybody:
            if p.poll() is None:
                p.kill()
                p.wait()


@pytest.mark.parametrize("mode", ["gather", "shard"])
@pytest.mark.parametrize("codec,width", [("f32", 4), ("bf16", 2)])
def test_every_machine_gets_the_same_sum(daemon, mode, codec, width):
    size = 3 << 20
    reports = allreduce(daemon, 3, "--size", "3 MiB", "--repeat", "2", "--mode", mode, "--codec", codec)
    assert len({r["checksum"] for r in reports}) == 1
    for r in reports:
        assert (r["peers"], r["bytes"], r["mode"], r["codec"]) == (3, size, mode, codec)
        assert len(r["seconds"]) == 2
        assert all(s > 0 for s in r["seconds"])
    # Each payload goes whole to two others; or two thirds of it to owners, and each third of the sum to two others.
    wire = size * width // 4
    total = sum(r["wire_sent"] - r["padding_sent"] for r in reports)
    payloads = {"gather": 3 * 2, "shard": 3 * 2 / 3 + 3 * 2 / 3}[mode]
    # On a busy machine a segment that is overdue goes once more.
    assert 2 * payloads * wire * 0.99 < total < 2 * payloads * wire * 1.25


def test_one_machine_alone(daemon):
    (report,) = allreduce(daemon, 1, "--size", "1 MiB", "--repeat", "1")
    assert report["peers"] == 1


@pytest.mark.parametrize("line", [["--size", "5 B"], ["--peers", "0"], ["--codec", "int3"], ["--mode", "ring"]])
def test_what_cannot_be(daemon, line):
    command = [daemon, "bench", "allreduce", *line]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
