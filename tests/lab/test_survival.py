"""Real daemons and signal 9: a member killed in each phase of a round, the founder killed, everybody killed."""

import contextlib
import pathlib
import shutil
import signal
import time

import pytest
from nodes import World, listener, wait_for

# Long enough that each phase of a round can be met, also by who was slow before: it does as many steps as the others.
# Nobody here dies of silence or of being late, however busy the machine is: deaths are by signal 9.
SLOW_ROUNDS = """
name = "survival"
[model]
kind = "quadratic"
width = 400000
[inner]
optimizer = "sgd"
lr = 0.02
weight_decay = 0.0
steps = 100
warmup = 0
[peers]
min = 3
pace = "equal"
silence_limit = "30 s"
grace = "30 s"
[exchange]
mode = "gather" # every member holds every payload, so that the work of a dead one may stay
[eval]
every = 0
[checkpoint]
every = 3
[stop]
rounds = 1000000
"""


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    for node in made.nodes:
        if node.alive():
            node.process.send_signal(signal.SIGCONT)
    made.end()


def three(world, config=SLOW_ROUNDS):
    """A founder and two members in training."""
    (world.folder / "run.toml").write_text(config)
    founder = world.start("founder", "run", world.folder / "run.toml", "--listen", "127.0.0.1:0")
    ticket = founder.ready()["ticket"]
    victim, other = world.join("victim", ticket), world.join("other", ticket)
    founder.wait_for_round(2)
    return founder, victim, other, ticket


def newest(node):
    return max((e["round"] for e in node.events("round_committed")), default=0)


def trained(node, number):
    return any(e["round"] == number for e in node.events("inner"))


def committed(node, number):
    return next(e for e in node.events("round_committed") if e["round"] == number)


def next_round(node):
    """The number of a round that has just begun."""
    before = newest(node)
    wait_for(lambda: newest(node) > before, "the next commit")
    return newest(node) + 1


def meet(node, phase):
    """The number of the first new round in which `phase(number)` is met: on a busy machine a test may come too late."""
    for _ in range(20):
        number = next_round(node)
        if phase(number):
            return number
    pytest.fail("in twenty rounds the phase was not met")


def hold(node):
    node.process.send_signal(signal.SIGSTOP)


def release(node):
    node.process.send_signal(signal.SIGCONT)


def kept_waiting(node):
    """Seconds that the node's threads were ready to run and did not: the most of one of them."""
    waits = []
    for task in pathlib.Path(f"/proc/{node.process.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread may just have ended
            waits.append(int((task / "schedstat").read_text().split()[1]) * 1e-9)
    return max(waits)


def slow_motion(node, stopped, running):
    """Leaves it stopped at the end. `running` is time in which it could run, not time that others took."""
    hold(node)
    time.sleep(stopped)
    waited, started = kept_waiting(node), time.monotonic()
    release(node)
    while time.monotonic() - started < running + kept_waiting(node) - waited:
        time.sleep(running)
    hold(node)


def check_equal_roots(*nodes):
    """All replicas' anchors are bit-identical after every commit."""
    roots = {}
    for node in nodes:
        for e in node.events("round_committed"):
            key = (e["generation"], e["round"])
            assert roots.setdefault(key, e["root"]) == e["root"], f"round {key} differs on {node.name}"
    assert roots


def comes_back(world, founder, victim, ticket):
    """Started again with the same command, the victim catches up and is merged."""
    again = world.join("victim", ticket)
    wait_for(lambda: len(again.events("started")) == 2, "its return")
    back = again.events("started")[-1]["t"]
    merged = lambda: any(e["own_merged"] and e["t"] > back for e in again.events("round_committed"))
    wait_for(merged, "being merged again")
    return again


def test_killed_while_training(world):
    founder, victim, other, ticket = three(world)

    def training(number):
        hold(victim)
        if not trained(victim, number):
            return True
        release(victim)

    number = meet(victim, training)
    victim.kill()
    founder.wait_for_round(number + 1)
    assert committed(founder, number)["members"] == 2
    assert any(e["round"] == number for e in founder.events("attempt_failed"))
    again = comes_back(world, founder, victim, ticket)
    check_equal_roots(founder, again, other)


def test_killed_while_sending(world):
    founder, victim, other, ticket = three(world)

    def sending(number):
        # A stopped receiver holds its transfer open: the victim dies with its payload half delivered.
        hold(other)
        if not trained(victim, number):
            return wait_for(lambda: trained(victim, number), "the victim's training")
        release(other)

    number = meet(victim, sending)
    victim.kill()
    release(other)
    founder.wait_for_round(number + 1)
    assert committed(founder, number)["members"] == 2
    assert committed(founder, number)["merged"] == 2
    again = comes_back(world, founder, victim, ticket)
    check_equal_roots(founder, again, other)


def test_killed_while_waiting(world):
    founder, victim, other, ticket = three(world)

    def waiting(number):
        # The other trains in slow motion, while its connections stay alive: the victim has sent everything and waits.
        hold(other)
        wait_for(lambda: trained(victim, number), "the victim's training")
        for _ in range(6):
            slow_motion(other, 0.15, 0.02)
        if not trained(other, number):
            return True
        release(other)

    number = meet(victim, waiting)
    victim.kill()
    release(other)
    founder.wait_for_round(number + 1)
    # Its work stays if it was delivered in full to both, although it is gone: the slow one may not have checked it yet.
    assert committed(founder, number)["members"] == 2
    assert committed(founder, number)["merged"] in (2, 3)
    again = comes_back(world, founder, victim, ticket)
    check_equal_roots(founder, again, other)


def test_a_member_returns_when_nobody_answers_at_the_tickets_address(world):
    founder, victim, other, ticket = three(world)
    wait_for((victim.folder / "run" / "addresses").exists, "the members' addresses being kept")
    victim.kill()
    listen = founder.ready()["listen"]
    stale = ticket.replace(listen, "127.0.0.1:1")
    assert stale != ticket
    again = comes_back(world, founder, victim, stale)
    check_equal_roots(founder, again, other)


def test_a_member_that_knows_nobody_is_found_by_the_others_and_stays_what_it_was(world):
    with listener() as reserved:
        own = "127.0.0.1:%d" % reserved.getsockname()[1]
    (world.folder / "run.toml").write_text(SLOW_ROUNDS)
    founder = world.start("founder", "run", world.folder / "run.toml", "--listen", "127.0.0.1:0")
    ticket = founder.ready()["ticket"]
    join = lambda ticket: world.start("victim", "join", ticket, "--listen", own)
    victim, other = join(ticket), world.join("other", ticket)
    order_records(founder, victim, other)
    victim.kill()
    (victim.folder / "run" / "addresses").unlink(missing_ok=True)
    again = join(ticket.replace(founder.ready()["listen"], "127.0.0.1:1"))
    wait_for(lambda: len(again.events("started")) == 2, "its return")
    goes_on(founder, again, other)
    order_records(founder, again, other)
    assert not [e for e in other.events("error") if e["code"] == "protocol"]


def order_records(*nodes):
    """Waits until these nodes, and no others, order the run's records."""
    names = {n.name for n in nodes}
    voters = lambda n: set(n.events("voters")[-1]["names"].split(", ")) if n.events("voters") else set()
    wait_for(lambda: all(voters(n) == names for n in nodes), "the voters being chosen")


def goes_on(*nodes):
    """All of them commit two further rounds."""
    before = max(newest(n) for n in nodes)
    wait_for(lambda: all(newest(n) >= before + 2 for n in nodes), "further rounds", 120)


def test_founder_killed_and_never_back(world):
    founder, victim, other, ticket = three(world)
    order_records(founder, victim, other)
    founder.kill()
    goes_on(victim, other)
    # Nobody needs the address that was in everybody's ticket.
    late = world.join("late", other.ready()["ticket"])
    merged = lambda: any(e["own_merged"] for e in late.events("round_committed"))
    wait_for(merged, "the newcomer being merged", 120)
    assert {e["generation"] for e in other.events("round_committed")} == {1}
    check_equal_roots(founder, victim, other, late)


def test_a_stopped_member_is_not_waited_for_until_its_connections_end(world):
    founder, victim, other, _ = three(world)
    order_records(founder, victim, other)
    hold(victim)
    goes_on(founder, other)
    assert [e["name"] for e in founder.events("peer_silent")] == ["victim"]
    assert not founder.events("peer_down")
    release(victim)
    back = newest(founder)
    merged = lambda: any(e["own_merged"] and e["round"] > back for e in victim.events("round_committed"))
    wait_for(merged, "being merged again")
    check_equal_roots(founder, victim, other)


def test_coordinator_stopped_and_going_on(world):
    founder, victim, other, _ = three(world, SLOW_ROUNDS.replace('silence_limit = "30 s"', 'silence_limit = "5 s"'))
    order_records(founder, victim, other)
    hold(founder)
    goes_on(victim, other)
    release(founder)
    goes_on(founder, victim, other)
    merged = lambda: founder.events("round_committed")[-1]["own_merged"]
    wait_for(merged, "the one that was stopped being merged again")
    assert {e["generation"] for e in other.events("round_committed")} == {1}
    check_equal_roots(founder, victim, other)


def test_founder_killed_while_the_others_live(world):
    founder, victim, other, _ = three(world)
    listen = founder.ready()["listen"]
    founder.wait_for_round(4)
    founder.kill()
    before = newest(other)
    again = world.start("founder", "run", world.folder / "run.toml", "--listen", listen)
    assert again.ready()["resumed"] is True
    wait_for(lambda: newest(other) > before + 2, "rounds after the founder's return")
    # Nothing that was committed is lost: the others hold what the founder's checkpoint has not.
    assert {e["generation"] for e in other.events("round_committed")} == {1}
    check_equal_roots(again, victim, other)


def test_a_peer_one_round_behind_after_everybody_was_killed_downloads_the_state(world):
    every_round = SLOW_ROUNDS.replace("every = 3", "every = 1")
    founder, victim, other, ticket = three(world, every_round)
    listen = founder.ready()["listen"]
    wait_for(lambda: all(len(n.events("checkpoint")) > 3 for n in (founder, victim, other)), "checkpoints")
    for node in (founder, victim, other):
        node.kill()
    saved = lambda n: sorted(p for p in (n.folder / "checkpoints").iterdir() if p.name.startswith("round-"))
    kept = {n: saved(n) for n in world.nodes}
    common = min(int(folders[-1].name.split("-")[-1]) for folders in kept.values())
    # Nobody holds an aggregate any more, and one peer has only the state before the newest.
    for path in kept[other]:
        if int(path.name.split("-")[-1]) >= common:
            shutil.rmtree(path)
    founder = world.start("founder", "run", world.folder / "run.toml", "--listen", listen)
    victim, other = world.join("victim", ticket), world.join("other", ticket)
    wait_for(lambda: newest(other) > common + 2 and newest(founder) > common + 2, "new rounds with all")
    check_equal_roots(founder, victim, other)


def test_everybody_killed_and_started_again(world):
    founder, victim, other, ticket = three(world)
    listen = founder.ready()["listen"]
    wait_for(lambda: founder.events("checkpoint") and victim.events("checkpoint"), "checkpoints")
    for node in (founder, victim, other):
        node.kill()
    saved = max(e["round"] for n in (founder, victim, other) for e in n.events("checkpoint"))
    founder = world.start("founder", "run", world.folder / "run.toml", "--listen", listen)
    victim, other = world.join("victim", ticket), world.join("other", ticket)
    wait_for(lambda: len(founder.events("started")) == 2 and newest(founder) > saved, "new rounds", 90)
    wait_for(lambda: newest(other) > saved + 1 and newest(victim) > saved + 1, "new rounds on all", 90)
    rounds = [(e["generation"], e["round"]) for e in founder.events("round_committed")]
    assert rounds == sorted(rounds), "a generation never goes back"
    check_equal_roots(founder, victim, other)


def test_another_node_at_an_advertised_address_is_not_taken_for_the_peer(world):
    """Two home networks use the same private addresses: here the first address of each joiner is the founder's."""
    founder = world.found(min_peers=3, rounds=8)
    ready = founder.ready()
    joiners = []
    for name in ("b", "c"):
        with listener() as reserved:
            own = "127.0.0.1:%d" % reserved.getsockname()[1]
        arguments = ("--listen", own, "--advertise", f"{ready['listen']},{own}")
        joiners.append(world.start(name, "join", ready["ticket"], *arguments))
    assert founder.wait().code == 0
    assert {e["merged"] for e in founder.events("round_committed")} == {3}
    check_equal_roots(founder, *joiners)


def test_a_founder_whose_log_is_damaged_comes_back_as_another_node(world):
    founder = world.found()
    ticket = founder.ready()["ticket"]
    others = [world.join(name, ticket) for name in ("one", "two")]
    wait_for(lambda: any(e["count"] == 3 for e in founder.events("voters")), "three who order records")
    wait_for((founder.folder / "run" / "addresses").exists, "the others' addresses on its disk")
    founder.kill()
    state = founder.folder / "raft" / "state"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    again = world.found()
    wait_for(lambda: len(again.events("started")) == 2, "its return")
    first, second = again.events("started")
    (change,) = again.events("became_another")
    assert (change["before"], change["key"]) == (first["key"], second["key"])
    assert "damaged" in change["reason"]
    wait_for(lambda: any(e["own_merged"] and e["t"] > second["t"] for e in again.events("round_committed")), "a merge")
    # It stays what it is, and the log that was refused is there to be looked at.
    assert (founder.folder / "former" / first["key"] / "raft" / "state").read_bytes() == bytes(content)
    again.kill()
    back = world.found()
    wait_for(lambda: len(back.events("started")) == 3, "its second return")
    assert back.events("started")[-1]["key"] == second["key"]
    check_equal_roots(back, *others)

LARGE = """
name = "large"
[model]
kind = "quadratic"
width = 4000000
[inner]
optimizer = "sgd"
lr = 0.05
weight_decay = 0.0
steps = 3
warmup = 0
[peers]
silence_limit = "30 s"
grace = "30 s"
[exchange]
mode = "{mode}"
codec = "{codec}"
feedback = "{feedback}"
[eval]
every = 0
[checkpoint]
every = 2
[stop]
rounds = 1000000
"""


@pytest.mark.parametrize(
    ("mode", "codec", "limit"), [("gather", "f32", 530), ("shard", "bf16", 480), ("gather", "topk-4/64", 480)]
)
def test_memory_stays_within_what_a_node_was_given(world, mode, codec, limit):
    """I11, by the kernel's count: buffers of the model's size (15 MiB) are declared, and come to no more than that."""
    feedback = "ef" if codec.startswith("topk") else "none"
    (world.folder / "run.toml").write_text(LARGE.format(mode=mode, codec=codec, feedback=feedback))
    memory = ("--memory", f"{limit} MiB")
    founder = world.start("founder", "run", world.folder / "run.toml", "--listen", "127.0.0.1:0", *memory)
    ticket = founder.ready()["ticket"]
    victim, late = world.join("victim", ticket, *memory), world.join("late", ticket, *memory)
    wait_for(lambda: any(e["members"] == 3 and e["merged"] == 3 for e in founder.events("round_committed")), "three")
    victim.kill()
    again = world.join("victim", ticket, *memory)
    merged = lambda: any(e["own_merged"] for e in again.events("round_committed")[-3:])
    wait_for(lambda: len(again.events("started")) == 2 and merged(), "being merged again")
    founder.wait_for_round(newest(founder) + 3)
    for node in (founder, again, late):
        status = pathlib.Path(f"/proc/{node.process.pid}/status").read_text()
        most = int(status.split("VmHWM:")[1].split()[0]) / 1024
        # What does not grow with the model: the program, its threads' stacks, its sockets' buffers.
        assert most < limit + 40, f"{node.name} took {most:.0f} MiB"
