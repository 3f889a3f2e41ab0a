"""What is wrong for a daemon is one sentence and the right exit code; the one that received it lives on."""

import contextlib
import json
import os
import pathlib
import re
import socket
import struct
import subprocess

import pytest
from nodes import PATIENCE, ROOT, listener, port_of, wait_for
from pace import exit_code

WIRE_VERSION = 1


def hello(wire_min=WIRE_VERSION, wire_max=WIRE_VERSION, role=1, run=bytes(32), session=bytes(16), connection=0):
    """The 96 bytes of net/PROTOCOL.md §2."""
    head = b"LONGHAUL" + struct.pack("<HHB3xI", wire_min, wire_max, role, connection)
    return (head + run + session).ljust(96, b"\0")


def test_port_in_use(world):
    with listener() as taken:
        port = taken.getsockname()[1]
        done = world.start("founder", "run", world.config(), "--listen", f"127.0.0.1:{port}").wait()
    assert done.code == 78
    assert str(port) in done.sentence


def test_a_second_daemon_on_one_state_folder(world):
    founder = world.found()
    founder.ready()
    done = world.run("run", world.config(), "--listen", "127.0.0.1:0", "--state-dir", founder.folder)
    assert done.code == 78
    assert str(founder.folder) in done.sentence
    world.still_serves(founder)


def change_key(ticket, where):
    """Another character in the key: in the run id (the first 43) or in what follows."""
    before, key = ticket.split("#")
    place = 5 if where == "run" else len(key) - 12
    changed = "A" if key[place] != "A" else "B"
    return f"{before}#{key[:place]}{changed}{key[place + 1:]}"


@pytest.mark.parametrize(("where", "code"), [("run", 76), ("secret", 77)])
def test_wrong_key_in_the_ticket(world, where, code):
    founder = world.found()
    ticket = change_key(founder.ready()["ticket"], where)
    done = world.join("joiner", ticket).wait()
    assert done.code == code, done.err
    assert done.sentence
    assert world.run("status", ticket).code == code
    probe = world.run("probe", ticket, "--json")
    assert probe.code == code and probe.json["admitted"] is False
    world.still_serves(founder)


def test_a_bare_address_does_not_open_an_invite_run(world):
    founder = world.found()
    done = world.join("joiner", founder.ready()["listen"]).wait()
    assert done.code == 77, done.err
    assert "ticket" in done.sentence
    world.still_serves(founder)


def test_a_bare_address_opens_an_open_run_and_prints_whom_it_trusts(world):
    founder = world.found(admission="open")
    ready = founder.ready()
    process = subprocess.Popen(
        [world.binary, "join", ready["listen"], "--listen", "127.0.0.1:0", "--state-dir", world.folder / "j"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=world.environment,
        text=True,
    )
    try:
        assert ready["run"] in process.stdout.readline()
    finally:
        process.terminate()
        exit_code(process, PATIENCE)


def test_another_model_than_expected(world):
    founder = world.found()
    ticket = founder.ready()["ticket"]
    other = world.folder / "other.toml"
    other.write_text(world.config().read_text().replace("width = 64", "width = 65"))
    done = world.start("joiner", "join", ticket, other, "--listen", "127.0.0.1:0").wait()
    assert done.code == 76, done.err
    assert "64" in done.sentence and "65" in done.sentence
    assert world.still_serves(founder)["alive"] == 1


def test_another_run_in_the_state_folder(world):
    first = world.found("first")
    ticket = world.found("second").ready()["ticket"]
    joiner = world.join("joiner", first.ready()["ticket"])
    joiner.ready()
    joiner.stop()
    done = world.join("joiner", ticket).wait()
    assert done.code == 78
    assert "--state-dir" in done.sentence


def test_other_settings_in_the_state_folder(world):
    founder = world.found()
    founder.ready()
    founder.stop()
    done = world.found(rounds=77).wait()
    assert done.code == 78
    assert "77" in done.sentence


def test_a_founder_of_another_protocol_version(world):
    with listener() as server:
        joiner = world.join("joiner", f"127.0.0.1:{server.getsockname()[1]}")
        with server.accept()[0] as connection:
            connection.settimeout(PATIENCE)
            assert connection.recv(96).startswith(b"LONGHAUL")
            connection.sendall(hello(wire_min=7, wire_max=9, role=3))
            done = joiner.wait()
    assert done.code == 76, done.err
    assert "7" in done.sentence and "9" in done.sentence


def test_a_joiner_of_another_protocol_version(world):
    founder = world.found()
    with socket.create_connection(("127.0.0.1", port_of(founder.ready())), timeout=PATIENCE) as stranger:
        stranger.sendall(hello(wire_min=7, wire_max=9))
        answer = stranger.recv(96)
        assert answer.startswith(b"LONGHAUL"), "so that the stranger can name the difference"
        assert struct.unpack("<HH", answer[8:12]) == (WIRE_VERSION, WIRE_VERSION)
        assert stranger.recv(1) == b""
    world.still_serves(founder)


def test_something_else_than_longhaul_answers(world):
    with listener() as server:
        joiner = world.join("joiner", f"127.0.0.1:{server.getsockname()[1]}")
        with server.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 8)
            done = joiner.wait()
    assert done.code == 76, done.err
    assert done.sentence


GARBAGE = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10,
    "zeros": bytes(4096),
    "half a hello": hello()[:50],
    "a hello of another run": hello(run=b"\x11" * 32),
    "a hello, then zeros": hello() + bytes(1000),
    "an empty frame": hello() + b"\0\0",
    "an oversized frame": hello() + b"\xff\xff" + bytes(65535),
    "a truncated frame": hello() + struct.pack("<H", 48) + bytes(20),
    "a whole frame of nonsense": hello() + struct.pack("<H", 48) + os.urandom(48),
    "bulk without a session": hello(role=2),
    "bulk of a session that nobody has": hello(role=2, session=b"\x22" * 16, connection=1) + b"\0\x30" + bytes(48),
    "an unknown role": hello(role=9),
    "noise": os.urandom(1 << 20),
}


def test_garbage_on_the_port(world):
    founder = world.found()
    ready = founder.ready()
    for what, data in GARBAGE.items():
        for half_close in (False, True):
            with socket.create_connection(("127.0.0.1", port_of(ready)), timeout=PATIENCE) as stranger:
                try:
                    stranger.sendall(data)
                    if half_close:
                        stranger.shutdown(socket.SHUT_WR)
                        while stranger.recv(65536):
                            pass
                except OSError:  # it hung up, also between two of our calls
                    pass
        assert founder.alive(), f"{what}: {founder.err.read_text()}"
    world.still_serves(founder)
    # And it still admits those who are welcome.
    world.join("joiner", ready["ticket"]).ready()


def test_garbage_on_the_control_socket(world):
    founder = world.found()
    founder.ready()
    lines = [b"\n", b"{}\n", b'{"do":"fly"}\n', b'{"do":1}\n', b"[" * 5000, b"x" * 100000, b'{"do":"status"']
    for data in [*lines, os.urandom(3000) + b"\n"]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(founder.folder / "control.sock"))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionError):  # closed with some of the garbage unread
                while part := client.recv(65536):
                    answer += part
            for line in answer.splitlines():
                assert json.loads(line)["ok"] is False
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for client in crowd:
        client.connect(str(founder.folder / "control.sock"))
    for client in crowd:
        client.close()
    wait_for(lambda: world.run("status", "--state-dir", founder.folder).code == 0, "the crowd being gone")
    assert founder.alive()


def test_a_missing_data_file(world):
    if not (world.binary.parent / "liblonghaul_torch.so").exists():
        pytest.skip("the LibTorch trainers are not built")
    config = world.folder / "text.toml"
    config.write_text('[data]\nkind = "text"\npath = "absent.txt"\n')
    done = world.start("founder", "run", config, "--listen", "127.0.0.1:0").wait()
    assert done.code == 78, done.err
    assert "absent.txt" in done.sentence


TEXT_RUN = """
name = "text-run"
[model]
layers = 1
width = 8
heads = 1
context = 8
[data]
kind = "{kind}"
path = "{path}"
eval_batches = 1
[inner]
steps = 1
batch = 2
[stop]
rounds = 1000000
"""


def text_run(world, kind):
    """A run on a text, and the text."""
    if not (world.binary.parent / "liblonghaul_torch.so").exists():
        pytest.skip("the LibTorch trainers are not built")
    text = world.folder / "poem.txt"
    text.write_bytes(b"To be, or not to be, that is the question.\n" * 2000)
    config = world.folder / "text.toml"
    config.write_text(TEXT_RUN.format(kind=kind, path=text))
    return config, text


def found_text_run(world, kind):
    """A founder that trains on a text of its own, and the text."""
    config, text = text_run(world, kind)
    founder = world.start("founder", "run", config, "--listen", "127.0.0.1:0", "--threads", "1")
    return founder, founder.ready()["ticket"], text


def test_two_peers_of_one_shard_draw_other_batches(world):
    """At one anchor the loss of a step is that of its batch alone."""
    config, text = text_run(world, "text")
    short = config.read_text().replace("1000000", "6")
    config.write_text(short.replace("[data]", "[peers]\nmin = 2\n[data]\nshards = 1"))
    founder = world.start("founder", "run", config, "--listen", "127.0.0.1:0", "--threads", "1")
    joiner = world.join("joiner", founder.ready()["ticket"], "--data", text, "--threads", "1")
    losses = [{e["round"]: e["loss"] for e in n.events("inner")} for n in (founder, joiner) if n.wait().code == 0]
    shared = set(losses[0]) & set(losses[1])
    assert len(shared) >= 3
    assert [losses[0][r] for r in shared] != [losses[1][r] for r in shared], "the same work, done twice"


def test_a_joiner_without_the_text_is_told_which_one_the_run_wants(world):
    founder, ticket, text = found_text_run(world, "text")
    done = world.join("joiner", ticket).wait()
    assert done.code == 78, done.err
    description = founder.events("started")[0]["data"]
    assert description in done.sentence and "poem.txt" in description and "hash" in description
    assert "--data" in done.sentence
    other = world.folder / "prose.txt"
    other.write_bytes(text.read_bytes().replace(b"question", b"quibble?"))
    done = world.join("joiner", ticket, "--data", other).wait()
    assert done.code == 76, done.err
    assert "prose.txt" in done.sentence and description in done.sentence
    assert world.still_serves(founder)["alive"] == 1
    copy = world.folder / "copy.txt"
    copy.write_bytes(text.read_bytes())
    world.join("joiner", ticket, "--data", copy, "--threads", "1").ready()


def test_a_joiner_whose_default_text_differs_is_told_so_by_name(world):
    """data.kind = "auto": a joiner that names nothing takes the default, Python's standard library."""
    founder, ticket, _ = found_text_run(world, "auto")
    done = world.join("joiner", ticket).wait()
    assert done.code == 76, done.err
    assert "standard library" in done.sentence and "poem.txt" in done.sentence
    assert world.still_serves(founder)["alive"] == 1


def test_the_readmes_run_starts_as_printed(world):
    """Somebody without any data copies it and founds the run."""
    if not (world.binary.parent / "liblonghaul_torch.so").exists():
        pytest.skip("the LibTorch trainers are not built")
    config = world.folder / "readme.toml"
    config.write_text(re.search(r"```toml\n(name = .*?)```", (ROOT / "README.md").read_text(), re.S).group(1))
    founder = world.start("founder", "run", config, "--listen", "127.0.0.1:0", "--threads", "1")
    founder.ready()
    wait_for(lambda: founder.events("waiting"), "the founder waiting for the second peer")


def test_a_trainer_that_does_not_fit_the_model(world):
    config = world.folder / "gpt.toml"
    config.write_text("")
    done = world.start("founder", "run", config, "--listen", "127.0.0.1:0", "--trainer", "quadratic").wait()
    assert done.code == 78
    assert "gpt" in done.sentence


def test_not_enough_memory(world):
    done = world.found("founder", "--memory", "1 kB").wait()
    assert done.code == 78
    assert "memory" in done.sentence and "--memory" in done.sentence


def test_started_tells_the_memory_that_is_refused_when_there_is_less(world):
    founder = world.found("founder", rounds=2)
    assert founder.wait(60).code == 0
    needed = founder.events("started")[0]["memory"]
    refused = world.found("less", "--memory", f"{needed - 1} B", rounds=2).wait()
    assert refused.code == 78 and "memory" in refused.sentence
    assert world.found("enough", "--memory", f"{needed} B", rounds=2).wait(60).code == 0


def damage(path: pathlib.Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
    else:
        path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("how", ["flip", "truncate"])
@pytest.mark.parametrize("name", ["model.safetensors", "outer.safetensors", "state.json"])
def test_a_damaged_checkpoint(world, how, name):
    founder = world.found()
    founder.ready()

    def complete():
        folder = founder.folder / "checkpoints"
        return sorted(folder.glob("round-*")) if folder.exists() else []

    wait_for(lambda: len(complete()) >= 2, "two checkpoints")
    founder.kill()
    checkpoints = complete()
    newest = int(checkpoints[-1].name.removeprefix("round-"))
    previous = int(checkpoints[-2].name.removeprefix("round-"))
    damage(checkpoints[-1] / name, how)
    refused = world.run("ckpt", "inspect", checkpoints[-1])
    assert refused.code == 78 and name in refused.sentence

    seen = len(founder.events("round_committed"))
    again = world.found()
    assert again.ready()["resumed"] is True
    errors = [e["message"] for e in again.events("error")]
    assert any(f"round {newest} " in e and "damaged" in e for e in errors), errors
    wait_for(lambda: len(again.events("round_committed")) > seen, "the run going on")
    assert again.events("round_committed")[seen]["round"] in range(previous + 1, newest + 1)


@pytest.mark.parametrize("name", ["incarnation", "run/secrets", "run/manifest", "identity"])
def test_a_damaged_file_of_the_node_is_named(world, name):
    founder = world.found()
    founder.ready()
    founder.stop()
    (founder.folder / name).write_bytes(b"")
    done = world.found().wait()
    assert done.code == 78, done.err
    assert name in done.sentence and ("restore it" in done.sentence or "remove it" in done.sentence)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where the kernel lets this user make one."""
    at = tmp_path / "founder"
    at.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "longhaul-test", at], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield at
    subprocess.run(["umount", "-l", at], check=True)


def test_disk_full_at_the_start(world, small_disk):
    (small_disk / "filler").write_bytes(bytes((1 << 20) - 8192))
    with contextlib.suppress(OSError), (small_disk / "more").open("wb", buffering=0) as rest:
        while rest.write(bytes(4096)):
            pass
    done = world.run("run", world.config(), "--listen", "127.0.0.1:0", "--state-dir", small_disk)
    assert done.code == 1, done.err
    assert "space" in done.sentence


def test_disk_full_while_training(world, small_disk):
    """Checkpoints that do not fit are reported; the run goes on, and ends with an error: its end is not saved."""
    config = world.config(rounds=8)
    config.write_text(config.read_text().replace("width = 64", "width = 100000"))
    command = ["run", config, "--listen", "127.0.0.1:0", "--state-dir", small_disk, "--trainer", "quadratic"]
    done = world.run(*command)
    assert done.code == 1, done.err
    assert "space" in done.sentence


def test_fit_budget(world):
    founder = world.found("founder", "--fit-budget", "2 s", "--fit-peers", "1", rounds=1000)
    done = founder.wait(120)
    assert done.code == 0
    started = founder.events("started")[0]
    assert "rounds of" in done.err
    assert founder.events("round_committed")[-1]["round"] >= 20
    assert started["run"]
