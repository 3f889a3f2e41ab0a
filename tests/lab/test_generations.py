"""Real daemons, some of them gone for good: the others go on without who ordered their records, and meet them again."""

import pytest
from nodes import World, wait_for
from test_survival import SLOW_ROUNDS, check_equal_roots, goes_on, newest, order_records

# Ten seconds without a coordinator, and the run goes on.
QUICK_TO_GO_ON = SLOW_ROUNDS.replace('silence_limit = "30 s"', 'silence_limit = "3 s"')
OF_TWO = QUICK_TO_GO_ON.replace("min = 3", "min = 2").replace("width = 400000", "width = 100000")


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.end()


def start(world, config, *names):
    """A founder and others, in training; and how to start the founder again."""
    (world.folder / "run.toml").write_text(config)
    founder = world.start("founder", "run", world.folder / "run.toml", "--listen", "127.0.0.1:0")
    told = founder.ready()
    others = [world.join(name, told["ticket"]) for name in names]
    wait_for(lambda: all(newest(n) >= 3 for n in (founder, *others)), "the first rounds")
    again = lambda: world.start("founder", "run", world.folder / "run.toml", "--listen", told["listen"])
    return founder, *others, told["ticket"], again


def generation(node):
    """Of its newest round; 0 before that."""
    rounds = node.events("round_committed")
    return rounds[-1]["generation"] if rounds else 0


def goes_on_without(node):
    wait_for(lambda: generation(node) > 1, "a generation of its own", 120)
    goes_on(node)


def meet(*nodes):
    wait_for(lambda: generation(nodes[0]) and len({generation(n) for n in nodes}) == 1, "one generation", 120)
    goes_on(*nodes)
    check_equal_roots(*nodes)


def test_the_founder_of_two_is_killed_and_the_run_goes_on(world):
    founder, other, ticket, again = start(world, OF_TWO, "other")
    founder.kill()
    goes_on_without(other)
    late = world.join("late", other.ready()["ticket"])
    meet(other, late)
    # Its disk has another log of the run, with less in it.
    founder = again()
    wait_for(lambda: founder.events("leaving_log"), "the founder's leaving its own log")
    wait_for(lambda: generation(founder) == generation(other), "the founder's taking part", 120)
    meet(founder, other, late)
    merged = lambda: any(e["own_merged"] and e["generation"] != 1 for e in founder.events("round_committed"))
    wait_for(merged, "the founder's work being merged")


def test_of_three_two_are_gone_and_a_person_has_the_last_go_on(world):
    founder, victim, other, ticket, again = start(world, QUICK_TO_GO_ON, "victim", "other")
    order_records(founder, victim, other)
    asked = world.run("recover", "--state-dir", other.folder)
    assert asked.code == 2
    assert asked.sentence.endswith("the run has a coordinator: there is nothing to recover")
    founder.kill()
    victim.kill()
    status = lambda: world.run("status", "--state-dir", other.folder, "--json").json
    wait_for(lambda: "longhaul recover" in status()["waiting_for"], "saying what it waits for")
    asked = world.run("recover", "--state-dir", other.folder)
    assert asked.code == 0
    assert "goes on from round" in asked.out
    assert "--yes" in asked.out
    assert generation(other) == 1, "it only says what it would cost"
    assert world.run("recover", "--yes", "--state-dir", other.folder).code == 0
    goes_on_without(other)
    founder, victim = again(), world.join("victim", ticket)
    wait_for(lambda: generation(founder) == generation(other) == generation(victim), "one generation", 120)
    meet(founder, victim, other)


def test_the_only_one_that_is_left_was_restarted_and_goes_on_when_it_is_told_to(world):
    founder, other, ticket, again = start(world, OF_TWO, "other")
    wait_for(lambda: any(e["round"] > 0 for e in other.events("checkpoint")), "a checkpoint")
    founder.kill()
    other.kill()
    saved = other.events("checkpoint")[-1]["round"]
    other = world.join("other", ticket)
    wait_for((other.folder / "control.sock").exists, "the daemon's socket")
    wait_for(lambda: world.run("recover", "--state-dir", other.folder).code == 0, "an answer")
    assert world.run("recover", "--yes", "--state-dir", other.folder).code == 0
    wait_for(lambda: newest(other) > saved and generation(other) != 1, "rounds of its own", 120)
    first = next(e for e in other.events("round_committed") if e["generation"] != 1)
    assert first["round"] == saved + 1, "it goes on from its checkpoint"
    founder = again()
    wait_for(lambda: generation(founder) == generation(other), "the founder's taking part", 120)
    meet(founder, other)
