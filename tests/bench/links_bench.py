"""Transfers and all-reduces over emulated links, beside iperf3 and Gloo; writes docs/BENCHMARKS.md

usage: scripts/bench links [--quick] [--only TEXT] [--cubic] [--out FILE]

Real kernels' TCP over the lab's emulated links (MTU 1500, a drop-tail queue of one bandwidth-delay product), encryption
on. A row tells floor = bytes / (rate less TCP/IP headers) + one RTT for the confirmed receipt (half an RTT for the
all-reduce of two), then medians. Needs root or user namespaces, iperf3 and .venv.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lab import LONGHAUL, PYTHON, ROOT, Lab  # noqa: E402

MIB = 1 << 20
# IPv4 and TCP with time stamps leave 1448 of 1500 bytes.
PAYLOAD_SHARE = 1448 / 1500


def pair(rate: str, rtt: str, loss: str = "0 %") -> str:
    machine = f'up = "{rate}"\ndown = "{rate}"\n'
    return (
        f'[links]\nrtt = "{rtt}"\nloss = "{loss}"\nmtu = 1500\n'
        f'[[peer]]\nname = "a"\n{machine}[[peer]]\nname = "b"\n{machine}'
    )


# up/down Mbit/s, access delay ms, loss: the eight peers of the third all-reduce.
UNEQUAL = [
    (1000, 1000, 5, 0), (500, 500, 10, 0), (500, 500, 20, 0), (200, 200, 10, 0.05),
    (200, 200, 30, 0), (100, 100, 20, 0.1), (100, 100, 40, 0), (50, 100, 15, 0),
]  # fmt: skip


def eight() -> str:
    text = "[links]\nmtu = 1500\n"
    for i, (up, down, delay, loss) in enumerate(UNEQUAL):
        text += f'[[peer]]\nname = "p{i}"\nup = "{up} Mbit/s"\ndown = "{down} Mbit/s"\n'
        text += f'delay = "{delay} ms"\nloss = "{loss} %"\n'
    return text


class Table:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bad = 0

    def row(self, work: str, floor: float, ours: list[float], others: str, lab: Lab, note: str = "") -> None:
        median = statistics.median(ours)
        if not lab.kept_up():
            self.bad += 1
            note = (note + "; " if note else "") + "the emulator did not keep up"
        spread = f"{min(ours):.2f}–{max(ours):.2f}"
        line = f"| {work} | {floor:.2f} s | **{median:.2f} s** ({spread}) | {median / floor:.2f} | {others} | {note} |"
        self.lines.append(line)
        print(line, flush=True)

    def text(self) -> str:
        head = "| work | floor | longhaul, median (least–most) | × floor | others | |\n|---|---|---|---|---|---|\n"
        return head + "\n".join(self.lines) + "\n"


def transfer(lab: Lab, size: int, cc: str, repeat: int, *more: object) -> dict:
    server = lab.start("b", LONGHAUL, "bench", "transfer", "--serve", "--congestion-control", cc,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    time.sleep(1)
    words = ("bench", "transfer", lab.address("b"), "--size", f"{size}", "--repeat", repeat, "--json")
    found = json.loads(lab.run("a", LONGHAUL, *words, "--congestion-control", cc, *more))
    server.terminate()
    server.wait()
    return found


def iperf3(lab: Lab, flows: int, cc: str, seconds: int = 10) -> float:
    """Received bits per second of payload."""
    server = lab.start("b", "iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    time.sleep(1)
    out = lab.run("a", "iperf3", "-c", lab.address("b"), "-P", flows, "-t", seconds, "-C", cc, "-J")
    server.wait(30)
    return float(json.loads(out)["end"]["sum_received"]["bits_per_second"])


def flows_of_iperf3(lab: Lab, rate: float, cc: str) -> str:
    shares = [f"{n}: {iperf3(lab, n, cc) / rate:.0%}" for n in (1, 4, 8, 16)]
    return "iperf3 flows, share of the rate over 10 s: " + ", ".join(shares)


def gloo(lab: Lab, peers: list[str], size: int, repeat: int) -> str:
    script = ROOT / "tests" / "bench" / "gloo_allreduce.py"
    words = [len(peers), lab.address(peers[0]), size, repeat]
    others = [lab.start(p, PYTHON, script, i, *words) for i, p in enumerate(peers) if i > 0]
    seconds = json.loads(lab.run(peers[0], PYTHON, script, 0, *words, limit=600))
    for process in others:
        process.wait(60)
    return f"Gloo {statistics.median(seconds):.2f} s"


def allreduce(lab: Lab, peers: list[str], size: int, repeat: int) -> dict:
    host = lab.start(peers[0], LONGHAUL, "bench", "allreduce", "--peers", len(peers), "--size", f"{size}",
                     "--repeat", repeat, "--json", stdout=subprocess.PIPE)  # fmt: skip
    time.sleep(1)
    for p in peers[1:]:
        lab.start(p, LONGHAUL, "bench", "allreduce", lab.address(peers[0]), stdout=subprocess.DEVNULL)
    out, _ = host.communicate(timeout=600)
    return json.loads(out.strip().splitlines()[-1])


def measure(table: Table, cc: str, repeat: int, wanted: Callable[[str], bool]) -> None:
    with_cc = "" if cc == "bbr" else f", {cc}"
    name = "256 MiB, 1 Gbit/s × 100 ms"
    if wanted(name):
        with Lab(pair("1 Gbit/s", "100 ms")) as lab:
            others = flows_of_iperf3(lab, 1e9, cc)
            floor = 256 * MIB * 8 / (1e9 * PAYLOAD_SHARE) + 0.1
            lab.kept_up()
            for direction, flag in (("up", ()), ("down", ("--down",)), ("both ways at once", ("--both",))):
                found = transfer(lab, 256 * MIB, cc, repeat + 1, *flag)
                note = f"k = {found['streams']}"
                table.row(f"{name}, {direction}{with_cc}, warm", floor, found["seconds"][1:], others, lab, note)
                others = ""
    name = "64 MiB, 1 Gbit/s × 100 ms"
    if wanted(name):
        with Lab(pair("1 Gbit/s", "100 ms")) as lab:
            floor = 64 * MIB * 8 / (1e9 * PAYLOAD_SHARE) + 0.1
            first = []
            for _ in range(repeat):
                first += transfer(lab, 64 * MIB, cc, 1)["seconds"]
            table.row(f"{name}{with_cc}, the first", floor, first, "", lab)
            found = transfer(lab, 64 * MIB, cc, repeat + 1)
            table.row(f"{name}{with_cc}, from the second on", floor, found["seconds"][1:], "", lab)
            found = transfer(lab, 64 * MIB, cc, 4, "--pause", "30 s")
            table.row(f"{name}{with_cc}, after 30 s of silence", floor, found["seconds"][1:], "", lab)
    name = "64 MiB, 200 Mbit/s × 200 ms, 0.05 % loss"
    if wanted(name):
        with Lab(pair("200 Mbit/s", "200 ms", "0.05 %")) as lab:
            others = flows_of_iperf3(lab, 200e6, cc)
            floor = 64 * MIB * 8 / (200e6 * PAYLOAD_SHARE) + 0.2
            lab.kept_up()
            found = transfer(lab, 64 * MIB, cc, repeat + 1)
            table.row(f"{name}{with_cc}, warm", floor, found["seconds"][1:], others, lab, f"k = {found['streams']}")
    name = "control round trip while bulk fills 10 Mbit/s × 100 ms"
    if wanted(name):
        with Lab(pair("10 Mbit/s", "100 ms")) as lab:
            found = transfer(lab, 16 * MIB, cc, 2)
            p99 = [found["rtt_p99_seconds"]]
            table.row(f"{name}{with_cc}, 99th percentile", 0.1, p99, "", lab, f"k = {found['streams']}")
    if cc != "bbr":
        return
    for size, rate, bits, rtt, loss, half in (
        (64, "1 Gbit/s", 1e9, "100 ms", "0 %", 0.05),
        (16, "100 Mbit/s", 100e6, "100 ms", "0.1 %", 0.05),
    ):
        name = f"all-reduce {size} MiB f32, 2 peers, {rate} × {rtt}" + ("" if loss == "0 %" else f", {loss} loss")
        if wanted(name):
            with Lab(pair(rate, rtt, loss)) as lab:
                others = gloo(lab, ["a", "b"], size * MIB, repeat)
                floor = size * MIB * 8 / (bits * PAYLOAD_SHARE) + half
                lab.kept_up()
                found = allreduce(lab, ["a", "b"], size * MIB, repeat)
                table.row(name, floor, found["seconds"], others, lab, found["mode"])
    name = "all-reduce 16 MiB f32, 8 unequal peers"
    if wanted(name):
        with Lab(eight()) as lab:
            peers = [f"p{i}" for i in range(len(UNEQUAL))]
            others = gloo(lab, peers, 16 * MIB, repeat)
            thinnest = min(up for up, *_ in UNEQUAL) * 1e6
            lab.kept_up()
            found = allreduce(lab, peers, 16 * MIB, repeat)
            floor = 16 * MIB * 8 / (thinnest * PAYLOAD_SHARE) + 0.075
            table.row(name, floor, found["seconds"], others, lab, found["mode"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench links", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two repetitions instead of five")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--cubic", action="store_true", help="with cubic, too")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "BENCHMARKS.md")
    options = parser.parse_args()
    table = Table()
    for cc in ["bbr", "cubic"] if options.cubic else ["bbr"]:
        measure(table, cc, 2 if options.quick else 5, lambda name: options.only in name)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    command = " ".join(["scripts/bench links", *sys.argv[1:]])
    text = f"""# Links and exchanges, measured

Written by `{command}`; do not edit. {datetime.date.today()}, commit {commit.stdout.strip()}, kernel
{platform.release()}, {len(UNEQUAL)} machines at most on one emulator of 2 cores.

Real kernels' TCP over emulated links (`longhaul lab`: MTU 1500, drop-tail queue of one bandwidth-delay product),
encryption on, until the receiver has verified the last byte. floor = bytes / (rate less TCP/IP headers) + one RTT for
the confirmed receipt, half an RTT for the all-reduce of two. Others were measured in the same run.

{table.text()}"""
    if options.only == "":
        options.out.write_text(text)
    return 1 if table.bad else 0


if __name__ == "__main__":
    sys.exit(main())
