"""python -m longhaul launch|plot|top: the command line."""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time

from longhaul import __version__, launch, plot, table
from longhaul.events import LAUNCHER_FILE, RunDirectory, RunView

EXIT_USAGE = 2
EXIT_NOBODY = 69


def main(arguments: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    founder_args: list[str] = []
    if "--" in words:
        cut = words.index("--")
        words, founder_args = words[:cut], words[cut + 1 :]
    options = parser().parse_args(words)
    if founder_args and options.command != "launch":
        print("longhaul: only launch takes arguments after --", file=sys.stderr)
        return EXIT_USAGE
    options.founder_args = founder_args
    try:
        return options.handler(options)
    except launch.LaunchError as problem:
        launch.print_error(str(problem))
        return problem.code
    except plot.PlotError as problem:
        print(f"longhaul plot: {problem}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="longhaul", description="Launches and shows runs of longhaul.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True)

    one = commands.add_parser(
        "launch",
        help="found a run and join it with several daemons on this machine",
        description="Founds a run and joins it with several daemons on this machine, and shows it while it goes on. "
        "Ctrl-C: everybody leaves cleanly. Exit code: the worst of the daemons that nobody killed on purpose.",
        epilog="PEER@round:N is after N rounds; PEER@percent:N and PEER@seconds:N work too. "
        "Arguments after -- go to `longhaul run`.",
    )
    one.add_argument("config", type=pathlib.Path, metavar="RUN.toml")
    one.add_argument("--peers", type=int, default=4, metavar="N", help="daemons, founder included (default 4)")
    one.add_argument("--dir", type=pathlib.Path, metavar="DIR", help="run directory (default runs/DATE-TIME)")
    when = "PEER@round:N"
    one.add_argument("--kill", action="append", default=[], metavar=when, help="kill -9 it then")
    one.add_argument("--join-late", action="append", default=[], metavar=when, help="start it only then")
    one.add_argument("--restart", action="append", default=[], metavar=when, help="start it again then")
    least = "members before the first round (default: as RUN.toml says, else all that do not join late)"
    one.add_argument("--min-peers", type=int, metavar="N", help=least)
    links = "on this scenario's machines, over its emulated links; its [run] is not used (sim/README.md has the keys)"
    one.add_argument("--lab", type=pathlib.Path, metavar="S.toml", help=links)
    one.add_argument("--max-seconds", type=float, metavar="S", help="end the run after so long")
    one.add_argument("--peer-arg", action="append", default=[], metavar="ARG", help="an argument for every daemon")
    one.add_argument("--binary", metavar="FILE", help="the daemon (default: build/release/longhaul, or the PATH)")
    one.add_argument("--plain", action="store_true", help="lines instead of a table")
    one.add_argument("--plot", action="store_true", help="draw loss.png and loss.svg at the end")
    one.add_argument("--json", action="store_true", help="print the result as JSON; the view goes to stderr")
    one.set_defaults(handler=do_launch)

    two = commands.add_parser("plot", help="draw loss over time and over bytes")
    two.add_argument("directories", nargs="+", type=pathlib.Path, metavar="RUN_DIR")
    two.add_argument("--out", type=pathlib.Path, metavar="FILE", help="without suffix: .png and .svg are written")
    two.set_defaults(handler=do_plot)

    three = commands.add_parser("top", help="watch a run, by its directory or by the address of a member")
    three.add_argument("target", metavar="RUN_DIR|ADDR", help="- reads the address from stdin")
    three.add_argument("--once", action="store_true", help="show it once and end")
    three.add_argument("--plain", action="store_true", help="lines instead of a table")
    three.add_argument("--binary", metavar="FILE", help="the daemon's program, which asks ADDR")
    three.set_defaults(handler=do_top)
    return top


def do_launch(options: argparse.Namespace) -> int:
    if not 1 <= options.peers <= 64:
        raise launch.LaunchError(f"--peers {options.peers} is not between 1 and 64", EXIT_USAGE)
    if options.min_peers is not None and not 1 <= options.min_peers <= options.peers:
        raise launch.LaunchError(f"--min-peers {options.min_peers} is not between 1 and {options.peers}", EXIT_USAGE)
    directory = options.dir or launch.default_directory()
    settings = launch.Options(
        config=options.config,
        peers=options.peers,
        directory=directory,
        binary=launch.find_binary(options.binary),
        founder_args=options.founder_args,
        peer_args=options.peer_arg,
        kills=[launch.parse_trigger(t) for t in options.kill],
        late=[launch.parse_trigger(t) for t in options.join_late],
        restarts=[launch.parse_trigger(t) for t in options.restart],
        max_seconds=options.max_seconds,
        min_peers=options.min_peers,
        scenario=options.lab,
    )
    screen = table.make_screen(sys.stderr if options.json else sys.stdout, options.plain)
    launcher = launch.Launcher(settings, screen)
    code = launcher.run()
    for daemon in launcher.daemons:
        if daemon.code and not daemon.killed:
            launch.print_error(f"{daemon.name} ended with {daemon.code}: {daemon.last_words() or 'it said nothing'}")
    if not launcher.kept_up:
        launch.print_error("this machine was too busy to keep to the emulated links' times: they were slower than said")
    if options.json:
        print(json.dumps(launcher.summary()))
    else:
        print(launch.sentence(launcher))
        print(f"events:     {directory}/peer-*/events.jsonl")
        checkpoint = newest_checkpoint(directory)
        if checkpoint:
            print(f"checkpoint: {checkpoint}")
    if options.plot:
        try:
            png, svg = plot.plot([directory])
            print(f"figure:     {png} and {svg.name}", file=sys.stderr if options.json else sys.stdout)
        except ImportError:
            launch.print_error("no figure: matplotlib is not installed (scripts/setup installs it)")
        except plot.PlotError as problem:
            launch.print_error(f"no figure: {problem}")
    if launcher.view.diverged:
        return code or 1
    return code


def newest_checkpoint(directory: pathlib.Path) -> pathlib.Path | None:
    """Of the latest round that any peer has kept, by the first of them."""
    files = sorted(directory.glob("peer-*/checkpoints/round-*/model.safetensors"))
    return max(files, key=lambda f: f.parent.name, default=None)


def do_plot(options: argparse.Namespace) -> int:
    try:
        for path in plot.plot(options.directories, options.out):
            print(path)
    except ImportError:
        print("longhaul plot: matplotlib is not installed (scripts/setup installs it)", file=sys.stderr)
        return EXIT_NOBODY
    return 0


def do_top(options: argparse.Namespace) -> int:
    path = pathlib.Path(options.target)
    if path.is_dir():
        return watch_directory(path, options)
    return watch_address(options)


def watch_directory(path: pathlib.Path, options: argparse.Namespace) -> int:
    directory, view = RunDirectory(path), RunView()
    screen = table.make_screen(sys.stdout, options.plain)
    with screen:
        while True:
            news = view.feed(directory.poll())
            if directory.empty:
                print(f"longhaul top: {path} has no events.jsonl and no {LAUNCHER_FILE}", file=sys.stderr)
                return EXIT_NOBODY
            screen.show(view, news)
            if options.once or (view.nodes and view.alive == 0):
                return 0
            time.sleep(0.5)


def watch_address(options: argparse.Namespace) -> int:
    """Asks a member for its status every second, and prints what it says. The ticket, a password, goes by stdin."""
    target = sys.stdin.readline().strip() if options.target == "-" else options.target
    binary = launch.find_binary(options.binary)
    table_wanted = sys.stdout.isatty() and not options.plain
    command = [str(binary), "status", "-", *([] if table_wanted else ["--json"])]
    while True:
        done = subprocess.run(command, input=f"{target}\n", capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stderr.strip() or "nobody answers there", file=sys.stderr)
            return done.returncode
        if table_wanted and not options.once:
            print("\033[H\033[2J", end="")
        print(done.stdout, end="", flush=True)
        if options.once:
            return 0
        time.sleep(1.0)
