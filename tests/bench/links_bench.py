"""Transfers and all-reduces over emulated links, beside iperf3 and Gloo; writes docs/BENCHMARKS.md

usage: scripts/bench links [--quick] [--only TEXT] [--cubic] [--save]

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
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lab import LONGHAUL, PYTHON, ROOT, Lab  # noqa: E402

KEPT = ROOT / "docs" / "results" / "links.json"
REPORT = ROOT / "docs" / "BENCHMARKS.md"
NULL_CIPHER = ROOT / "build" / "null-cipher" / "longhaul"
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
    """Rows by name, kept between runs."""

    def __init__(self, facts: str, keep: bool) -> None:
        self.facts = facts
        self.keep = keep
        self.rows: dict[str, dict] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        self.bad = 0

    def row(self, work: str, floor: float, ours: list[float], others: str, lab: Lab, note: str = "", goal: float = 0):
        """`goal`, like the others in seconds; 0: none is set."""
        if not lab.kept_up():
            self.bad += 1
            note = (note + "; " if note else "") + "the emulator did not keep up"
        row = {"floor": floor, "seconds": ours, "others": others, "note": note, "goal": goal, "measured": self.facts}
        self.rows[work] = row
        print(self.line(work), flush=True)
        if self.keep:  # at once: a later row may fail, and minutes of measuring would be lost
            self.save()

    def line(self, work: str) -> str:
        r = self.rows[work]
        median = statistics.median(r["seconds"])
        spread = f"{min(r['seconds']):.2f}–{max(r['seconds']):.2f}, n = {len(r['seconds'])}"
        goal = f"{r['goal']:.2f} s" + ("" if median <= r["goal"] else ", **missed**") if r["goal"] else ""
        if goal and "did not keep up" in r["note"]:
            goal += " (this machine cannot tell)"
        cells = [work, f"{r['floor']:.2f} s", f"**{median:.2f} s** ({spread})", f"{median / r['floor']:.2f}", goal]
        return "| " + " | ".join([*cells, r["others"], r["note"]]) + " |"

    def text(self) -> str:
        head = "| work | floor | longhaul, median (least–most) | × floor | goal | others | |\n"
        return head + "|---" * 7 + "|\n" + "\n".join(map(self.line, self.rows)) + "\n"

    def save(self) -> None:
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(self.rows, indent=1, ensure_ascii=False) + "\n")
        runs = sorted({r["measured"] for r in self.rows.values()})
        REPORT.write_text(f"""# Links and exchanges, measured

Written by `scripts/bench links --save` from `docs/results/links.json`; do not edit. {processor()},
{os.cpu_count()} cores for all machines and the emulator together, kernel {platform.release()}.
Measured (date, commit): {"; ".join(runs)}.

Real kernels' TCP over emulated links (`longhaul lab`: MTU 1500, drop-tail queue of one bandwidth-delay product),
encryption on, bbr unless a row says cubic, until the receiver has verified the last byte. floor = bytes / (rate less
TCP/IP headers) + one RTT for the confirmed receipt, half an RTT for the all-reduce of two. What stands under others was
measured in the same run.

{self.text()}""")


def transfer(
    lab: Lab,
    size: int,
    cc: str,
    repeat: int,
    *more: object,
    program: pathlib.Path = LONGHAUL,
    meanwhile: Callable[[threading.Event], None] | None = None,
) -> dict:
    """`meanwhile` is called with an event that tells the end of the measurement, on a thread of its own."""
    server = lab.start("b", program, "bench", "transfer", "--serve", "--congestion-control", cc,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    time.sleep(1)
    over = threading.Event()
    beside = threading.Thread(target=meanwhile, args=(over,)) if meanwhile else None
    if beside:
        beside.start()
    words = ("bench", "transfer", lab.address("b"), "--size", f"{size} B", "--repeat", repeat, "--json")
    try:
        return json.loads(lab.run("a", program, *words, "--congestion-control", cc, *more))
    finally:
        over.set()
        if beside:
            beside.join()
        server.terminate()
        server.wait()


def iperf3(lab: Lab, flows: int, cc: str, *more: str) -> list[float]:
    """Received bits per second of payload over ten seconds, in each direction that was asked for."""
    server = lab.start("b", "iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    time.sleep(1)
    out = lab.run("a", "iperf3", "-c", lab.address("b"), "-P", flows, "-t", 10, *cc_words(cc), "-J", *more)
    server.wait(30)
    end = json.loads(out)["end"]
    sums = [end[key] for key in ("sum_received", "sum_received_bidir_reverse") if key in end]
    return [float(s["bits_per_second"]) for s in sums]


def cc_words(cc: str) -> list[str]:
    # cubic is the machines' default then (see `default_to`): not every user may choose it.
    return ["-C", cc] if cc == "bbr" else []


def default_to(lab: Lab, cc: str) -> None:
    """The congestion control of connections that may not choose another one, in this lab's machines."""
    for peer in lab.network.peers:
        try:
            lab.administer(peer, "sysctl", "-q", "-w", f"net.ipv4.tcp_congestion_control={cc}")
        except subprocess.CalledProcessError:
            raise SystemExit(
                f"bench: namespaces may not use {cc} here; as root: "
                f'sysctl -w net.ipv4.tcp_allowed_congestion_control="reno bbr cubic"'
            ) from None


def flows_of_iperf3(lab: Lab, rate: float, cc: str, counts: tuple[int, ...] = (1, 4, 8, 16), *more: str) -> str:
    if not shutil.which("iperf3"):
        return "iperf3 is not installed"
    shares = []
    for n in counts:
        found = " and ".join(f"{got / rate:.0%}" for got in iperf3(lab, n, cc, *more))
        shares.append(f"{n}: {found}" + ("" if lab.kept_up() else " (the emulator did not keep up)"))
    return "iperf3 flows" + " ".join(("", *more)) + ", share of the rate over 10 s: " + ", ".join(shares)


def kill_one_a_second(lab: Lab, over: threading.Event) -> None:
    """Resets the bulk connection that has carried most, again and again, until it is over."""
    while not over.wait(1):
        busiest, most = "", 1 << 20
        words = ("ss", "-tinHO", "dst", lab.address("b"))
        for line in lab.administer("a", *words).splitlines():
            acked = re.search(r"bytes_acked:(\d+)", line)
            if acked and int(acked[1]) > most:
                busiest, most = line.split()[3].rsplit(":", 1)[1], int(acked[1])
        if busiest:
            lab.administer("a", "ss", "-tK", "sport", "=", f":{busiest}")


def gloo(lab: Lab, peers: list[str], size: int, repeat: int) -> str:
    script = ROOT / "tests" / "bench" / "gloo_allreduce.py"
    words = [len(peers), lab.address(peers[0]), size, repeat]
    others = [lab.start(p, PYTHON, script, i, *words) for i, p in enumerate(peers) if i > 0]
    seconds = json.loads(lab.run(peers[0], PYTHON, script, 0, *words, limit=600))
    for process in others:
        process.wait(60)
    return f"Gloo {statistics.median(seconds):.2f} s"


def allreduce(lab: Lab, peers: list[str], size: int, repeat: int) -> dict:
    """Warm: connections that have carried data and a plan from what was measured, so the first two do not count."""
    host = lab.start(peers[0], LONGHAUL, "bench", "allreduce", "--peers", len(peers), "--size", f"{size} B",
                     "--repeat", repeat + 2, "--json", stdout=subprocess.PIPE)  # fmt: skip
    time.sleep(1)
    for p in peers[1:]:
        lab.start(p, LONGHAUL, "bench", "allreduce", lab.address(peers[0]), stdout=subprocess.DEVNULL)
    out, _ = host.communicate(timeout=600)
    found = json.loads(out.strip().splitlines()[-1])
    found["first"], found["seconds"] = found["seconds"][0], found["seconds"][2:]
    found["note"] = f"{found['mode']}; the first, before anything was measured: {found['first']:.1f} s"
    return found


def measure_transfers(table: Table, cc: str, repeat: int, wanted: Callable[[str], bool]) -> None:
    with_cc = "" if cc == "bbr" else f", {cc}"
    ours = cc == "bbr"
    gigabit = pair("1 Gbit/s", "100 ms")
    name = "256 MiB, 1 Gbit/s × 100 ms"
    floor = 256 * MIB * 8 / (1e9 * PAYLOAD_SHARE) + 0.1
    for direction, flag in (("up", ()), ("down", ("--down",))):
        if wanted(f"{name}, {direction}"):
            with Lab(gigabit) as lab:
                default_to(lab, cc)
                others = flows_of_iperf3(lab, 1e9, cc) if direction == "up" else ""
                lab.kept_up()
                found = transfer(lab, 256 * MIB, cc, repeat + 1, *flag)
                # Which end sends knows how many connections it uses.
                note = f"k = {found['streams_used']}" if direction == "up" else ""
                goal = 1.05 * floor if ours else 0
                table.row(f"{name}, {direction}{with_cc}, warm", floor, found["seconds"][1:], others, lab, note, goal)
    if wanted(f"{name}, both ways at once"):
        with Lab(gigabit) as lab:
            default_to(lab, cc)
            others = flows_of_iperf3(lab, 1e9, cc, (8,), "--bidir")
            lab.kept_up()
            found = transfer(lab, 256 * MIB, cc, repeat + 1, "--both")
            note, goal = f"the slower of the two; k = {found['streams_used']}", 1.08 * floor if ours else 0
            work = f"{name}, both ways at once{with_cc}, warm"
            table.row(work, floor, found["seconds"][1:], others, lab, note, goal)
    name = "64 MiB, 1 Gbit/s × 100 ms"
    floor = 64 * MIB * 8 / (1e9 * PAYLOAD_SHARE) + 0.1
    if wanted(f"{name}, the first"):
        with Lab(gigabit) as lab:
            default_to(lab, cc)
            first = []
            for _ in range(repeat):
                first += transfer(lab, 64 * MIB, cc, 1)["seconds"]
            table.row(f"{name}{with_cc}, the first", floor, first, "", lab, goal=1.3 if ours else 0)
    if wanted(f"{name}, from the second on"):
        with Lab(gigabit) as lab:
            default_to(lab, cc)
            found = transfer(lab, 64 * MIB, cc, repeat + 1)
            work = f"{name}{with_cc}, from the second on"
            table.row(work, floor, found["seconds"][1:], "", lab, goal=0.70 if ours else 0)
    if wanted(f"{name}, after 30 s of silence"):
        with Lab(gigabit) as lab:
            default_to(lab, cc)
            found = transfer(lab, 64 * MIB, cc, repeat + 1, "--pause", "30 s")
            work = f"{name}{with_cc}, after 30 s of silence"
            table.row(work, floor, found["seconds"][1:], "", lab, goal=0.70 if ours else 0)
    name = "64 MiB, 200 Mbit/s × 200 ms, 0.05 % loss"
    if wanted(name):
        with Lab(pair("200 Mbit/s", "200 ms", "0.05 %")) as lab:
            default_to(lab, cc)
            others = flows_of_iperf3(lab, 200e6, cc)
            floor = 64 * MIB * 8 / (200e6 * PAYLOAD_SHARE) + 0.2
            lab.kept_up()
            found = transfer(lab, 64 * MIB, cc, repeat + 1)
            note, goal = f"k = {found['streams_used']}", 1.07 * floor if ours else 0
            table.row(f"{name}{with_cc}, warm", floor, found["seconds"][1:], others, lab, note, goal)
    name = "control round trip while bulk fills 10 Mbit/s × 100 ms"
    if wanted(name):
        with Lab(pair("10 Mbit/s", "100 ms")) as lab:
            default_to(lab, cc)
            runs = [transfer(lab, 16 * MIB, cc, 2) for _ in range(repeat)]
            found, p99 = runs[-1], [run["rtt_p99_seconds"] for run in runs]
            note, goal = f"k = {found['streams_used']}", 0.16 if ours else 0
            table.row(f"{name}{with_cc}, 99th percentile", 0.1, p99, "", lab, note, goal)
    if not ours:
        return
    name = "64 MiB, 200 Mbit/s × 50 ms, a bulk connection killed every second"
    if wanted(name):
        with Lab(pair("200 Mbit/s", "50 ms")) as lab:
            floor = 64 * MIB * 8 / (200e6 * PAYLOAD_SHARE) + 0.05
            whole = statistics.median(transfer(lab, 64 * MIB, cc, repeat + 1)["seconds"][1:])
            lab.kept_up()
            found = transfer(lab, 64 * MIB, cc, repeat + 1, meanwhile=lambda over: kill_one_a_second(lab, over))
            lost = statistics.median(found["seconds"][1:]) - whole
            note = f"{whole:.2f} s without kills: {lost * 1000:.0f} ms lost"
            table.row(name, floor, found["seconds"][1:], "", lab, note)
    for word, option in (("sends", "--up-limit"), ("receives", "--down-limit")):
        name = f"40 MiB, 200 Mbit/s × 50 ms, a node that {word} 50 Mbit/s at most"
        if wanted(name):
            with Lab(pair("200 Mbit/s", "50 ms")) as lab:
                floor = 40 * MIB * 8 / (50e6 * PAYLOAD_SHARE) + 0.05
                direction = ("--down",) if word == "receives" else ()
                lab.sent_bytes()
                found = transfer(lab, 40 * MIB, cc, repeat, option, "50 Mbit/s", *direction)
                sent = lab.sent_bytes()["b" if direction else "a"]
                wire = 8 * sent / sum(found["seconds"])
                note = f"on the wire, control and headers included: {wire / 50e6:.1%} of the limit"
                table.row(name, floor, found["seconds"], "", lab, note, 1.03 * floor)
    name = "256 MiB, 1 Gbit/s × 100 ms, encrypted, beside a build with a null cipher"
    if wanted(name):
        if not NULL_CIPHER.exists():
            print(f"{name}: left out; cmake --preset null-cipher && cmake --build build/null-cipher", file=sys.stderr)
        else:
            with Lab(gigabit) as lab:
                times: dict[pathlib.Path, list[float]] = {LONGHAUL: [], NULL_CIPHER: []}
                for _ in range(2):
                    for program, seconds in times.items():
                        seconds += transfer(lab, 256 * MIB, cc, repeat + 1, program=program)["seconds"][1:]
                null = statistics.median(times[NULL_CIPHER])
                cost = statistics.median(times[LONGHAUL]) / null - 1
                note = f"{null:.3f} s without encryption: it costs {cost:.1%}"
                floor = 256 * MIB * 8 / (1e9 * PAYLOAD_SHARE) + 0.1
                table.row(name, floor, times[LONGHAUL], "", lab, note, 1.02 * null)


def measure_allreduces(table: Table, repeat: int, wanted: Callable[[str], bool]) -> None:
    for size, rate, bits, rtt, loss, half, goal in (
        (64, "1 Gbit/s", 1e9, "100 ms", "0 %", 0.05, 0.72),
        (16, "100 Mbit/s", 100e6, "100 ms", "0.1 %", 0.05, 1.65),
    ):
        name = f"all-reduce {size} MiB f32, 2 peers, {rate} × {rtt}" + ("" if loss == "0 %" else f", {loss} loss")
        if wanted(name):
            with Lab(pair(rate, rtt, loss)) as lab:
                others = gloo(lab, ["a", "b"], size * MIB, repeat)
                floor = size * MIB * 8 / (bits * PAYLOAD_SHARE) + half
                lab.kept_up()
                found = allreduce(lab, ["a", "b"], size * MIB, repeat)
                table.row(name, floor, found["seconds"], others, lab, found["note"], goal)
    name = "all-reduce 16 MiB f32, 8 unequal peers"
    if wanted(name):
        with Lab(eight()) as lab:
            peers = [f"p{i}" for i in range(len(UNEQUAL))]
            others = gloo(lab, peers, 16 * MIB, repeat)
            thinnest = min(up for up, *_ in UNEQUAL) * 1e6
            lab.kept_up()
            found = allreduce(lab, peers, 16 * MIB, repeat)
            floor = 16 * MIB * 8 / (thinnest * PAYLOAD_SHARE) + 0.075
            table.row(name, floor, found["seconds"], others, lab, found["note"], 3.3)


def processor() -> str:
    with open("/proc/cpuinfo") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench links", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two repetitions instead of five")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--cubic", action="store_true", help="transfers with cubic instead of bbr")
    parser.add_argument("--save", action="store_true", help="keep the rows, and write docs/BENCHMARKS.md")
    options = parser.parse_args()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    table = Table(f"{datetime.date.today()}, {commit.stdout.strip()}", options.save)
    repeat = 2 if options.quick else 5

    def wanted(name: str) -> bool:
        return options.only in name

    measure_transfers(table, "cubic" if options.cubic else "bbr", repeat, wanted)
    if not options.cubic:
        measure_allreduces(table, repeat, wanted)
    return 1 if table.bad else 0


if __name__ == "__main__":
    sys.exit(main())
