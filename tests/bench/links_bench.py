"""Transfers and all-reduces over emulated links, beside iperf3 and Gloo; writes docs/BENCHMARKS.md

usage: scripts/bench links [--quick] [--only PATTERN] [--cubic] [--save]

Real kernels' TCP over the lab's emulated links (MTU 1500, a drop-tail queue of one bandwidth-delay product), encryption
on. A row tells floor = bytes / (rate less TCP/IP headers) + one RTT for the confirmed receipt (half an RTT for the
all-reduce of two), then medians. --save keeps the rows of this run in docs/results/links.json, instead of earlier ones
of the same names, and writes the table of all that are kept: so a run may measure a part. Needs root or user
namespaces, and .venv; iperf3 where it is to stand beside.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lab import LONGHAUL, PYTHON, ROOT, Lab, commit  # noqa: E402
from links_table import Measured, Table  # noqa: E402

NULL_CIPHER = ROOT / "build" / "null-cipher" / "longhaul"
MIB = 1 << 20
FLOWS = (1, 4, 8, 16)
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


def transfer(
    lab: Lab,
    size: int,
    cc: str,
    repeat: int,
    *more: object,
    program: pathlib.Path = LONGHAUL,
    meanwhile: Callable[[threading.Event], None] | None = None,
    to: str = "b",
) -> dict:
    """Between machine a and `to`; a itself: over loopback. `meanwhile` is called with an event that tells the end of
    the measurement, on a thread of its own."""
    cold = ["--cold"] if "--cold" in more else []
    server = lab.start(to, program, "bench", "transfer", "--serve", "--congestion-control", cc, *cold,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    time.sleep(1)
    over = threading.Event()
    beside = threading.Thread(target=meanwhile, args=(over,)) if meanwhile else None
    if beside:
        beside.start()
    words = ("bench", "transfer", lab.address(to), "--size", f"{size} B", "--repeat", repeat, "--json")
    try:
        return json.loads(lab.run("a", program, *words, "--congestion-control", cc, *more))
    finally:
        over.set()
        if beside:
            beside.join()
        server.terminate()
        server.wait()


def flag(lab: Lab) -> str:
    return "" if lab.kept_up() else " (the emulator did not keep up)"


def iperf3(lab: Lab, flows: int, cc: str, *more: object) -> dict:
    """What it says of the end."""
    server = lab.start("b", "iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    time.sleep(1)
    # cubic is the machines' default then (Lab.prefer): not every user may choose it.
    chosen = ["-C", cc] if cc == "bbr" else []
    out = lab.run("a", "iperf3", "-c", lab.address("b"), "-P", flows, *chosen, "-J", *more)
    server.wait(30)
    return json.loads(out)["end"]


def beside_iperf3(
    lab: Lab, cc: str, what: str, read: Callable[[dict], list[float]], show: str, *more: object, repeat: int
) -> str:
    """`read` finds figures in what iperf3 says; their medians are shown, for each number of flows."""
    if not shutil.which("iperf3"):
        return "iperf3 is not installed"
    told = []
    for flows in FLOWS:
        lab.kept_up()
        found, left_behind = [], 0
        for _ in range(repeat):
            found.append(read(iperf3(lab, flows, cc, *more)))
            left_behind += not lab.kept_up()
        words = " and ".join(format(statistics.median(figures), show) for figures in zip(*found, strict=True))
        told.append(f"{flows}: {words}" + (f" ({left_behind} of {repeat} not kept up with)" if left_behind else ""))
    return f"iperf3 flows, {what}{', once' if repeat == 1 else ''}: " + ", ".join(told)


def shares(lab: Lab, rate: float, cc: str, *more: str, repeat: int) -> str:
    """Of the rate, received in each direction that was asked for."""

    def read(end: dict) -> list[float]:
        sums = [end[key] for key in ("sum_received", "sum_received_bidir_reverse") if key in end]
        return [s["bits_per_second"] / rate for s in sums]

    what = " ".join([*more, "share of the rate over 10 s"])
    return beside_iperf3(lab, cc, what, read, ".0%", "-t", 10, *more, repeat=repeat)


def cold_seconds(lab: Lab, size: int, cc: str, repeat: int) -> str:
    def read(end: dict) -> list[float]:
        return [size * end["sum_sent"]["seconds"] / end["sum_sent"]["bytes"]]

    return beside_iperf3(
        lab, cc, "seconds cold, until all was given to the kernel", read, ".2f", "-n", size, repeat=repeat
    )


def inner_round_trips(lab: Lab, cc: str, repeat: int) -> str:
    """What a message would meet on the very connections that carry bulk, and it would wait for unsent bytes, too."""

    def read(end: dict) -> list[float]:
        return [max(s["sender"]["max_rtt"] for s in end["streams"]) / 1e6]

    what = "seconds of the longest round trip inside of them"
    return beside_iperf3(lab, cc, what, read, ".2f", "-t", 10, repeat=repeat)


def kill_one_a_second(lab: Lab, over: threading.Event, kills: list[str]) -> None:
    """Resets the bulk connection that has carried most, again and again, until it is over; `kills` are their ports."""
    while not over.wait(1):
        busiest, most = "", 1 << 20
        words = ("ss", "-tinHO", "dst", lab.address("b"))
        for line in lab.administer("a", *words).splitlines():
            acked = re.search(r"bytes_acked:(\d+)", line)
            if acked and int(acked[1]) > most:
                busiest, most = line.split()[3].rsplit(":", 1)[1], int(acked[1])
        if busiest:
            lab.administer("a", "ss", "-tK", "sport", "=", f":{busiest}")
            kills.append(busiest)


def gloo(lab: Lab, peers: list[str], size: int, repeat: int) -> str:
    script = ROOT / "tests" / "bench" / "gloo_allreduce.py"
    words = [len(peers), lab.address(peers[0]), size, repeat]
    others = [lab.start(p, PYTHON, script, i, *words) for i, p in enumerate(peers) if i > 0]
    seconds = json.loads(lab.run(peers[0], PYTHON, script, 0, *words, limit=600))
    for process in others:
        process.wait(60)
    return f"Gloo {statistics.median(seconds):.2f} s"


def allreduce(lab: Lab, peers: list[str], size: int, cc: str, repeat: int, program: pathlib.Path = LONGHAUL) -> dict:
    """Warm: connections that have carried data and a plan from what was measured, so the first two do not count."""
    chosen = ("--congestion-control", cc)
    host = lab.start(peers[0], program, "bench", "allreduce", "--peers", len(peers), "--size", f"{size} B",
                     "--repeat", repeat + 2, "--json", *chosen, stdout=subprocess.PIPE)  # fmt: skip
    time.sleep(1)
    guests = [
        lab.start(p, program, "bench", "allreduce", lab.address(peers[0]), *chosen, stdout=subprocess.DEVNULL)
        for p in peers[1:]
    ]
    out, _ = host.communicate(timeout=600)
    codes = [host.returncode, *(guest.wait(60) for guest in guests)]
    if any(codes):
        raise SystemExit(f"bench: longhaul bench allreduce ended with {codes}")
    found = json.loads(out.strip().splitlines()[-1])
    found["first"], found["seconds"] = found["seconds"][0], found["seconds"][2:]
    found["note"] = f"{found['mode']}; the first, before anything was measured: {found['first']:.1f} s"
    return found


def floor_of(size: int, rate: float, rtt: float) -> float:
    return size * 8 / (rate * PAYLOAD_SHARE) + rtt


def measure_transfers(table: Table, cc: str, repeat: int) -> None:
    with_cc = "" if cc == "bbr" else f", {cc}"
    # Goals are set for bbr. What others do with cubic is measured once, for the time that it takes.
    goals, others_repeat = (1, repeat) if cc == "bbr" else (0, 1)
    gigabit = pair("1 Gbit/s", "100 ms")

    def moved(lab: Lab, others: str, size: int, *more: object, skip: int = 1) -> Measured:
        """Without the first ones, which warm the connections."""
        lab.kept_up()
        found = transfer(lab, size, cc, repeat + skip, *more)
        note = f"k = {found['streams_used']}"
        if "streams_used_down" in found:
            note = f"the slower of the two; {note} and {found['streams_used_down']}"
        return Measured(found["seconds"][skip:], others, note)

    name, floor = "256 MiB, 1 Gbit/s × 100 ms", floor_of(256 * MIB, 1e9, 0.1)
    for direction, flags, theirs, most in (
        ("up", (), (), 1.05),
        ("down", ("--down",), ("-R",), 1.05),
        ("both ways at once", ("--both",), ("--bidir",), 1.08),
    ):

        def measure(lab: Lab, flags=flags, theirs=theirs) -> Measured:
            return moved(lab, shares(lab, 1e9, cc, *theirs, repeat=others_repeat), 256 * MIB, *flags)

        table.row(f"{name}, {direction}{with_cc}, warm", floor, most * floor * goals, gigabit, cc, measure)

    name, floor = f"64 MiB, 1 Gbit/s × 100 ms{with_cc}", floor_of(64 * MIB, 1e9, 0.1)

    def first(lab: Lab, others: str, *more: object) -> Measured:
        lab.kept_up()
        return Measured([transfer(lab, 64 * MIB, cc, 1, *more)["seconds"][0] for _ in range(repeat)], others)

    def cold(lab: Lab) -> Measured:
        return first(lab, cold_seconds(lab, 64 * MIB, cc, others_repeat), "--cold")

    def warmed(lab: Lab) -> Measured:
        return first(lab, "", "--pause", "2 s")

    def again(lab: Lab) -> Measured:
        return moved(lab, "", 64 * MIB)

    def after_silence(lab: Lab) -> Measured:
        return moved(lab, "", 64 * MIB, "--pause", "30 s")

    table.row(f"{name}, the first, connections open but not warmed", floor, 1.3 * goals, gigabit, cc, cold)
    table.row(f"{name}, the first, offered 2 s before its bytes are there", floor, 1.3 * goals, gigabit, cc, warmed)
    table.row(f"{name}, from the second on", floor, 0.70 * goals, gigabit, cc, again)
    table.row(f"{name}, after 30 s of silence", floor, 0.70 * goals, gigabit, cc, after_silence)

    def lossy(lab: Lab) -> Measured:
        return moved(lab, shares(lab, 200e6, cc, repeat=others_repeat), 64 * MIB)

    floor = floor_of(64 * MIB, 200e6, 0.2)
    work = f"64 MiB, 200 Mbit/s × 200 ms, 0.05 % loss{with_cc}, warm"
    table.row(work, floor, 1.07 * floor * goals, pair("200 Mbit/s", "200 ms", "0.05 %"), cc, lossy)

    def control(lab: Lab) -> Measured:
        others = inner_round_trips(lab, cc, 1)
        lab.kept_up()
        # Nearly two minutes of it, the first second included, in which bbr looks for the rate.
        runs = [transfer(lab, 16 * MIB, cc, 8) for _ in range(repeat)]
        most = statistics.median(r["rtt_most_seconds"] for r in runs)
        note = f"k = {runs[-1]['streams_used']}; the longest of all, at the beginning: {most:.2f} s"
        return Measured([r["rtt_p99_seconds"] for r in runs], others, note)

    work = f"control round trip while bulk fills 10 Mbit/s × 100 ms{with_cc}, 99th percentile of all"
    table.row(work, 0.1, 0.16 * goals, pair("10 Mbit/s", "100 ms"), cc, control)


def measure_faults_and_limits(table: Table, repeat: int) -> None:
    cc, network = "bbr", pair("200 Mbit/s", "50 ms")

    def killed(lab: Lab) -> Measured:
        whole = statistics.median(transfer(lab, 64 * MIB, cc, repeat + 1)["seconds"][1:])
        base = f"{whole:.2f} s without kills{flag(lab)}"
        kills: list[str] = []
        found = transfer(lab, 64 * MIB, cc, repeat + 1, meanwhile=lambda over: kill_one_a_second(lab, over, kills))
        seconds = found["seconds"][1:]
        if not kills:
            raise SystemExit("bench: this kernel kills no connections (ss -K)")
        lost = statistics.median(seconds) - whole
        return Measured(seconds, "", f"{base}: {lost * 1000:.0f} ms lost; {len(kills)} kills in {repeat + 1} transfers")

    work = "64 MiB, 200 Mbit/s × 50 ms, a bulk connection killed every second"
    table.row(work, floor_of(64 * MIB, 200e6, 0.05), 0, network, cc, killed)

    floor = floor_of(40 * MIB, 50e6, 0.05)
    for word, option, direction in (("sends", "--up-limit", ()), ("receives", "--down-limit", ("--down",))):

        def limited(lab: Lab, option=option, direction=direction) -> Measured:
            lab.sent_bytes()
            found = transfer(lab, 40 * MIB, cc, repeat, option, "50 Mbit/s", "--cold", *direction)
            sent = lab.sent_bytes()["b" if direction else "a"]
            wire = 8 * sent / sum(found["seconds"])
            note = f"on the wire, control and headers included: {wire / 50e6:.1%} of the limit"
            return Measured(found["seconds"], "", note)

        work = f"40 MiB, 200 Mbit/s × 50 ms, a node that {word} 50 Mbit/s at most"
        table.row(work, floor, 1.03 * floor, network, cc, limited)


def measure_encryption(table: Table, cc: str, repeat: int) -> None:
    with_cc = "" if cc == "bbr" else f", {cc}"

    def in_turn(measure: Callable[[pathlib.Path], list[float]]) -> Measured:
        for words in (["--preset", "null-cipher"], ["--build", "build/null-cipher", "--target", "longhaul"]):
            subprocess.run(["cmake", *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        times: dict[pathlib.Path, list[float]] = {LONGHAUL: [], NULL_CIPHER: []}
        for _ in range(3):
            for program, seconds in times.items():
                seconds += measure(program)
        null = statistics.median(times[NULL_CIPHER])
        cost = statistics.median(times[LONGHAUL]) / null - 1
        note = f"{null:.3f} s without encryption: it costs {cost:.1%}"
        return Measured(times[LONGHAUL], "", note, 1.02 * null if cc == "bbr" else 0)

    def transfers(lab: Lab) -> Measured:
        return in_turn(lambda program: transfer(lab, 256 * MIB, cc, repeat + 1, program=program)["seconds"][1:])

    def sums(lab: Lab) -> Measured:
        return in_turn(lambda program: allreduce(lab, ["a", "b"], 64 * MIB, cc, repeat, program)["seconds"])

    def loopback(lab: Lab) -> Measured:
        size = 512 * MIB
        found = in_turn(lambda program: transfer(lab, size, cc, repeat + 1, program=program, to="a")["seconds"][1:])
        rate = size * 8 / statistics.median(found.seconds)
        return Measured(found.seconds, note=f"{rate / 1e9:.1f} Gbit/s; {found.note}")

    network, tail = pair("1 Gbit/s", "100 ms"), f"{with_cc}, encrypted, beside a build with a null cipher"
    table.row(f"256 MiB, 1 Gbit/s × 100 ms{tail}", floor_of(256 * MIB, 1e9, 0.1), 0, network, cc, transfers)
    work = f"all-reduce 64 MiB f32, 2 peers, 1 Gbit/s × 100 ms{tail}"
    table.row(work, floor_of(64 * MIB, 1e9, 0.05), 0, network, cc, sums)
    if cc == "bbr":
        work = "512 MiB over loopback, what two cores carry, encrypted, beside a build with a null cipher"
        table.row(work, 0, 0, network, cc, loopback)


def measure_allreduces(table: Table, cc: str, repeat: int) -> None:
    with_cc = "" if cc == "bbr" else f", {cc}"
    goals = 1 if cc == "bbr" else 0

    def summed(lab: Lab, size: int) -> Measured:
        peers = list(lab.network.peers)
        others = gloo(lab, peers, size * MIB, repeat) + flag(lab)
        # They are short, and bbr's probes come every ten seconds: only several of its periods make an average.
        found = allreduce(lab, peers, size * MIB, cc, 3 * repeat)
        return Measured(found["seconds"], others, found["note"])

    for size, rate, bits, loss, goal in (
        (64, "1 Gbit/s", 1e9, "0 %", 0.72),
        (16, "100 Mbit/s", 100e6, "0.1 %", 1.65),
    ):
        work = f"all-reduce {size} MiB f32, 2 peers, {rate} × 100 ms" + ("" if loss == "0 %" else f", {loss} loss")
        floor, network = floor_of(size * MIB, bits, 0.05), pair(rate, "100 ms", loss)
        table.row(work + with_cc, floor, goal * goals, network, cc, lambda lab, size=size: summed(lab, size))
    floor = floor_of(16 * MIB, min(up for up, *_ in UNEQUAL) * 1e6, 0.075)
    work = f"all-reduce 16 MiB f32, 8 unequal peers{with_cc}"
    table.row(work, floor, 3.3 * goals, eight(), cc, lambda lab: summed(lab, 16))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench links", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two repetitions instead of five")
    parser.add_argument("--only", default="", help="rows whose name matches this (a regular expression)")
    parser.add_argument("--cubic", action="store_true", help="with cubic instead of bbr")
    parser.add_argument("--save", action="store_true", help="keep the rows, and write docs/BENCHMARKS.md")
    options = parser.parse_args()
    table = Table(f"{datetime.date.today()}, {commit()}", options.save, options.only)
    repeat, cc = 2 if options.quick else 5, "cubic" if options.cubic else "bbr"
    measure_transfers(table, cc, repeat)
    if not options.cubic:
        measure_faults_and_limits(table, repeat)
    measure_encryption(table, cc, repeat)
    measure_allreduces(table, cc, repeat)
    return 1 if table.bad else 0


if __name__ == "__main__":
    sys.exit(main())
