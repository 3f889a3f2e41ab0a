"""The command line where no daemon is needed: what it accepts, what it refuses, and how it says so."""

import json
import re
import stat
import subprocess

import pytest
from nodes import ROOT


def test_version(world):
    done = world.run("version")
    assert done.code == 0 and done.out.startswith("longhaul ")
    told = world.run("version", "--json").json
    assert told["wire_min"] <= told["wire_max"]
    assert told["encrypts"] is True
    assert world.run("--version").out == done.out


def test_help_names_every_command(world):
    done = world.run("--help")
    assert done.code == 0
    words = "run join leave stop status peers probe ckpt keygen doctor version launch plot top pause resume"
    for command in words.split():
        assert f" {command} " in done.out
    assert "--listen" in world.run("run", "--help").out
    for command in ["run", "join", "status", "ckpt inspect"]:
        assert f"Usage: longhaul {command} " in world.run(*command.split(), "--help").out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["statsu"], ['"longhaul statsu"', 'did you mean "status"?', '"longhaul --help"']),
        (["foo"], ['"longhaul foo"', '"longhaul --help"']),
        (["ckpt", "exprot", "x"], ['"longhaul ckpt exprot"', 'did you mean "export"?', '"longhaul ckpt --help"']),
    ],
)
def test_a_command_that_does_not_exist_is_named(world, line, words):
    done = world.run(*line)
    assert done.code == 2
    for word in words:
        assert word in done.sentence
    assert ("did you mean" in done.sentence) == any("did you mean" in word for word in words)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("LONGHAUL_INNER_LRR", "LONGHAUL_INNER_LR"),
        ("LONGHAUL_STATE_DRI", "LONGHAUL_STATE_DIR"),
        ("LONGHAUL_NODE_THREAD", "LONGHAUL_NODE_THREADS"),
        ("LONGHAUL_XYZZY", None),
    ],
)
@pytest.mark.parametrize("line", [["run", "--print-config"], ["status"], ["doctor"]])
def test_an_unknown_variable_is_an_error(world, line, wrong, right):
    done = world.run(*line, **{wrong: "3"})
    assert done.code == 78 and done.out == ""
    assert f'"{wrong}"' in done.sentence
    assert ("did you mean" in done.sentence) == (right is not None)
    if right is not None:
        assert f"did you mean {right}?" in done.sentence


def test_every_variable_that_something_reads_is_known(world):
    """Those of the configuration are known by their keys; the others stand in one list, which --help shows."""
    read = set()
    pattern = re.compile(r"""(?:getenv\(|environ(?:\.get)?[(\[]|\$\{?)\s*["']?(LONGHAUL_[A-Z_]+)""")
    folders = ["core", "net", "compress", "optim", "peers", "sim", "scripts", "tests"]
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*")):
        if path.is_file() and (path.suffix in {".cpp", ".hpp", ".py", ".sh"} or path.parent.name == "scripts"):
            read |= set(pattern.findall(path.read_text(errors="replace")))
    assert read >= {"LONGHAUL_STATE_DIR", "LONGHAUL_PYTHON", "LONGHAUL_BINARY"}, "the pattern finds nothing any more"
    done = world.run("version", **{name: "x" for name in read})
    assert done.code == 0, done.err
    shown = world.run("--help").out
    for name in (n for n in read if not n.startswith(("LONGHAUL_PEERS_", "LONGHAUL_NODE_"))):
        assert name in shown


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["fly"],
        ["run", "--no-such-flag"],
        ["join"],
        ["run", "--trainer", "magic"],
        ["run", "--set", "inner.lr"],
        ["run", "--set", "=1"],
        ["run", "--die-with-fd", "x"],
        ["run", "--die-with-fd", "77"],
        ["ckpt"],
        ["keygen"],
        ["join", "longhaul://host/name"],
        ["join", "longhaul://host:7400/name#notbase64!"],
        ["join", "host:99999"],
        ["join", "127.0.0.1:7400", "--set", "inner.lr=1"],
    ],
)
def test_usage_errors_end_with_2_and_one_sentence(world, line):
    done = world.run(*line)
    assert done.code == 2
    assert done.sentence
    assert done.out == ""


def test_precedence_and_origins(world):
    path = world.folder / "run.toml"
    path.write_text('name = "a"\n[inner]\nlr = 0.1\nsteps = 7\nbatch = 4\n[stop]\nrounds = 5\n')
    node = world.folder / "node.toml"
    node.write_text('[node]\nname = "from-file"\nthreads = 3\n')
    done = world.run(
        *["run", path, "--print-config", "--node-config", node, "--set", "stop.rounds=9", "--lr", "0.3"],
        *["--threads", "2"],
        LONGHAUL_INNER_LR="0.2",
        LONGHAUL_INNER_STEPS="8",
        LONGHAUL_NODE_NAME="from-environment",
    )
    assert done.code == 0, done.err
    section, shown = "", {}
    for line in done.out.splitlines():
        line = line.removeprefix("# ")  # the node's part
        if line.startswith("["):
            section = line.strip("[]") + "."
        elif "=" in line:
            key, _, rest = line.partition("=")
            key = key.strip()
            shown[key if "." in key else section + key] = rest
    for key, value, origin in [
        ("inner.lr", "0.3", "--lr"),
        ("inner.steps", "8", "LONGHAUL_INNER_STEPS"),
        ("inner.batch", "4", "run.toml:5"),
        ("stop.rounds", "9", "--set stop.rounds"),
        ("inner.warmup", "100", "default"),
        ("node.threads", "2", "--threads"),
        ("node.name", "from-environment", "LONGHAUL_NODE_NAME"),
    ]:
        assert value in shown[key], (key, shown[key])
        assert origin in shown[key], (key, shown[key])


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[inner]\nlearning_rate = 1\n", ["inner.learning_rate", "run.toml:2"]),
        ("[peers]\nadmision = 'open'\n", ["peers.admision", "peers.admission", "run.toml:2"]),
        ("[peers]\ngrace = '3 parsecs'\n", ["peers.grace", "3 parsecs", "run.toml:2"]),
        ("[peers]\ngrace = '3'\n", ["peers.grace", "run.toml:2"]),
        ("[stop]\nrounds = 0\n", ["stop.rounds", "run.toml:2"]),
        ("[exchange]\ncodec = 'bf61'\n", ["exchange.codec", "bf16"]),
        ("[model]\nwidth = 65\n", ["model.width", "65"]),
        ("name = 'a/b'\n", ["a/b"]),
        ("[inner\n", ["run.toml:1"]),
        ("\0", ["run.toml"]),
    ],
)
def test_bad_configuration_ends_with_78_and_one_sentence(world, toml, words):
    path = world.folder / "run.toml"
    path.write_text(toml)
    done = world.run("run", path, "--state-dir", world.folder / "s")
    assert done.code == 78
    for word in words:
        assert word in done.sentence
    assert not (world.folder / "s").exists(), "a wrong configuration must leave nothing behind"


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--listen", "nonsense:port"], "nonsense:port"),
        (["--device", "gpu"], "gpu"),
        (["--memory", "4"], "node.memory"),
        (["--log-format", "xml"], "xml"),
    ],
)
def test_bad_node_flags_end_with_78(world, flags, word):
    done = world.run("run", world.config(), *flags)
    assert done.code == 78
    assert word in done.sentence


def test_a_missing_run_file_is_named(world):
    done = world.run("run", "absent.toml")
    assert done.code == 78
    assert "absent.toml" in done.sentence


@pytest.mark.parametrize("flag", ["RUN.toml", "--node-config"])
def test_what_is_no_file_of_toml_ends_with_78(world, flag):
    (world.folder / "large.toml").write_text("#" * (1 << 20) + "\n")
    for name in ["large.toml", "/"]:
        line = ["run", name] if flag == "RUN.toml" else ["run", flag, name]
        done = world.run(*line, "--state-dir", world.folder / "s")
        assert done.code == 78, done.err
        assert name in done.sentence and "TOML" in done.sentence


@pytest.mark.parametrize("state", ["file", "file/below", "/proc/nowhere", "x" * 300])
def test_a_state_folder_that_cannot_be_ends_with_78(world, state):
    (world.folder / "file").write_text("")
    done = world.run("run", world.config(), "--listen", "127.0.0.1:0", "--state-dir", state)
    assert done.code == 78, done.err
    assert state in done.sentence and "--state-dir" in done.sentence
    if state.startswith("/proc"):
        return  # where the kernel says that root may write
    doctor = world.run("doctor", "--json", "--listen", "127.0.0.1:0", "--state-dir", state)
    assert doctor.code == 78
    (found,) = [f for f in doctor.json["findings"] if f["what"] == "state folder"]
    assert found["verdict"] == "fail" and state in found["found"] and "--state-dir" in found["advice"]


def test_keygen_where_nothing_can_be_written_ends_with_78(world):
    for line in [["--out", "absent/identity"], ["--state-dir", "/proc/nowhere"]]:
        done = world.run("keygen", *line)
        assert done.code == 78, done.err
        assert line[1] in done.sentence and "name a folder" in done.sentence


def test_keygen_writes_once(world):
    made = world.run("keygen", "--out", "identity", "--json")
    assert made.code == 0 and len(made.json["key"]) == 64
    path = world.folder / "identity"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert world.run("keygen", "--state-dir", "new/node").code == 0
    assert stat.S_IMODE((world.folder / "new/node").stat().st_mode) == 0o700
    assert stat.S_IMODE((world.folder / "new/node/identity").stat().st_mode) == 0o600
    before = path.read_bytes()
    again = world.run("keygen", "--out", "identity")
    assert again.code == 78 and "identity" in again.sentence
    assert path.read_bytes() == before
    assert not list(world.folder.glob("*.new"))


@pytest.mark.parametrize("what", ["status", "peers", "stop", "leave", "pause", "resume"])
def test_without_a_daemon_requests_end_with_69(world, what):
    done = world.run(what)
    assert done.code == 69
    assert "no longhaul runs" in done.sentence
    done = world.run(what, "--state-dir", world.folder)
    assert done.code == 69
    assert str(world.folder) in done.sentence


@pytest.mark.parametrize("what", ["status", "probe"])
def test_nobody_reachable_is_69(world, what):
    for address in ["no-such-host.invalid", "127.0.0.1:1"]:
        done = world.run(what, address)
        assert done.code == 69, done.err
        assert address.split(":")[0] in done.sentence


def test_joining_nobody_is_69(world):
    done = world.run("join", "no-such-host.invalid:7400", "--listen", "127.0.0.1:0")
    assert done.code == 69, done.err
    assert "no-such-host.invalid" in done.sentence


def test_probe_as_json_says_what_to_do(world):
    done = world.run("probe", "127.0.0.1:1", "--json")
    assert done.code == 69
    told = done.json
    assert told["ok"] is False and told["addresses"][0]["reachable"] is False and told["addresses"][0]["advice"]


def test_doctor(world):
    done = world.run("doctor", "--json", "--listen", "127.0.0.1:0", "--state-dir", world.folder / "s")
    told = done.json
    found = {f["what"]: f for f in told["findings"]}
    for what in ["version", "processor", "memory", "disk", "port", "trainer", "congestion control", "clock"]:
        assert found[what]["verdict"] in ("ok", "warn", "fail")
        assert (found[what]["advice"] == "") == (found[what]["verdict"] == "ok"), found[what]
    assert str(world.folder / "s") in found["state folder"]["found"]
    assert done.code == (0 if told["ok"] else 78)
    assert world.run("doctor", "--listen", "127.0.0.1:0").out.count("\n") >= len(found)


def test_ckpt_names_what_is_missing(world):
    done = world.run("ckpt", "inspect", "nowhere")
    assert done.code == 78
    assert "nowhere" in done.sentence


def test_python_commands_hand_over(world):
    done = world.run("launch", "--help", LONGHAUL_PYTHON="/bin/echo")
    assert done.code == 0
    assert done.out.split() == ["-m", "longhaul", "launch", "--help"]
    done = world.run("plot", "dir", LONGHAUL_PYTHON="/nonexistent/python")
    assert done.code == 78
    assert "/nonexistent/python" in done.sentence


def without_origins(text):
    """The lines that mean something."""
    return [line.split(" #")[0].rstrip() for line in text.splitlines() if line and not line.startswith("#")]


def test_print_config_reads_back(world):
    """As it stands, from another folder: the path of a file in it still leads there."""
    near = world.config()
    near.write_text(near.read_text() + '[data]\nkind = "quadratic"\npath = "corpus/text.txt"\n')
    first = world.run("run", near, "--print-config", "--name", "somebody")
    assert first.code == 0, first.err
    far = world.folder / "far" / "again.toml"
    far.parent.mkdir()
    far.write_text(first.out)
    second = world.run("run", far, "--print-config")
    assert second.code == 0, second.err
    assert without_origins(second.out) == without_origins(first.out)
    assert f'path = "{world.folder}/corpus/text.txt"' in without_origins(second.out)
    assert "# name = \"somebody\"" in first.out and "somebody" not in second.out, "the node's part is shown as comments"


def test_print_config_of_a_joiner_reads_back_as_node_toml(world):
    first = world.run("join", "127.0.0.1:7400", "--print-config", "--threads", "3", "--memory", "2 GiB")
    assert first.code == 0 and "threads = 3" in first.out
    again = world.folder / "node.toml"
    again.write_text(first.out)
    second = world.run("join", "127.0.0.1:7400", "--print-config", "--node-config", again)
    assert second.code == 0, second.err
    assert without_origins(second.out) == without_origins(first.out)


def readme_example(title):
    """The first block of TOML that begins so."""
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return next(block for block in blocks if block.startswith(title))


def test_the_readmes_files_are_accepted_as_printed(world):
    """Every key of node.toml is in the example, and the values of RUN.toml's are taken."""
    (world.folder / "run.toml").write_text(readme_example("name = "))
    (world.folder / "node.toml").write_text(readme_example("[node]"))
    done = world.run("run", "run.toml", "--node-config", "node.toml", "--print-config")
    assert done.code == 0, done.err
    for value, origin in [('kind = "stdlib"', "run.toml:"), ("min = 2 ", "run.toml:")]:
        assert re.search(re.escape(value) + rf" *# {origin}", done.out), done.out
    node = done.out.partition("[node]")[2].strip().splitlines()
    assert len(node) >= 8
    assert all(" # node.toml:" in line for line in node), "a key that the README does not name"


def test_an_address_is_read_from_stdin(world):
    """A ticket on a command line is seen by all users of the machine."""
    for command in ["join", "status", "peers", "probe"]:
        done = world.run(command, "-", stdin="no-such-host.invalid:7400\n")
        assert done.code == 69, (command, done.err)
        assert "no-such-host.invalid" in done.sentence
        done = world.run(command, "-", stdin="")
        assert done.code == 2 and "stdin" in done.sentence
        done = world.run(command, "-", stdin="longhaul://host/name\n")
        assert done.code == 2


@pytest.mark.parametrize("listen", ["foo", "foo.invalid:0", "192.0.2.1:0"])
def test_an_address_of_another_machine_to_listen_on_is_78(world, listen):
    done = world.run("run", world.config(), "--listen", listen, "--state-dir", world.folder / "s")
    assert done.code == 78, done.err
    assert listen.split(":")[0] in done.sentence and "--listen" in done.sentence


def test_an_answer_that_does_not_fit_is_an_error(world):
    with open("/dev/full", "w") as full:
        for line in [["version"], ["doctor", "--json", "--listen", "127.0.0.1:0"], ["run", "--print-config"]]:
            command = [world.binary, *line]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=world.environment, text=True)
            assert done.returncode == 1, line
            assert "cannot write to stdout" in done.stderr and "free some space" in done.stderr


def test_json_is_one_line(world):
    for line in [["version", "--json"], ["doctor", "--json", "--listen", "127.0.0.1:0"]]:
        out = world.run(*line).out
        assert out.count("\n") == 1 and json.loads(out)
