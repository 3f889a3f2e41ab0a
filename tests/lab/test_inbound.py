"""Who cannot be connected to, and who has several addresses: real daemons, and firewalls by nft in their namespaces."""

import json
import shutil
import subprocess

import pytest
from nodes import QUADRATIC, World, wait_for

# What a home router does: what was asked for may come in, and nothing else.
FIREWALL = """
table inet firewall {
    chain input {
        type filter hook input priority 0; policy drop;
        iifname "lo" accept
        ct state established,related accept
        meta l4proto ipv6-icmp accept
    }
}
"""
NO_FAMILY = """
table inet firewall {{
    chain input {{
        type filter hook input priority 0; policy accept;
        iifname "longhaul0" meta nfproto {family} meta l4proto tcp drop
    }}
}}
"""
THREE = """
[links]
rtt = "10 ms"
[[peer]]
name = "founder"
[[peer]]
name = "home"
[[peer]]
name = "office"
"""
PORT = 7400


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.end()


def set_firewall(held, peer, rules):
    if not shutil.which("nft"):
        pytest.skip("nft is not installed")
    words = [*held.peers[peer]["enter_as_administrator"], "nft", "-f", "-"]
    done = subprocess.run(words, input=rules, text=True, capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"nft does not work in a namespace here: {done.stderr}")


def run_file(world, min_peers):
    path = world.folder / "run.toml"
    # A step takes long enough for a round's exchange to be seen from outside, and wide enough to use bulk connections.
    text = QUADRATIC.format(admission="invite", min_peers=min_peers, rounds=1000000)
    path.write_text(text.replace("width = 64", "width = 100000"))
    return path


def start(world, held, peer, *arguments):
    more = ["--listen", f":{PORT}", "--set", "node.step_time=50 ms"]
    return world.start(peer, *arguments, *more, within=held.peers[peer]["enter"])


def status(world, node):
    return world.run("status", "--state-dir", node.folder, "--json").json


def test_two_peers_behind_firewalls_take_part_and_are_merged_and_are_told(world, lab):
    held = lab(THREE)
    for peer in ("home", "office"):
        set_firewall(held, peer, FIREWALL)
    founder = start(world, held, "founder", "run", run_file(world, 3))
    ticket = founder.ready()["ticket"]
    hidden = [start(world, held, peer, "join", ticket) for peer in ("home", "office")]

    def both_merged():
        """Three rounds in a row with the work of all."""
        last = founder.events("round_committed")[-3:]
        return len(last) == 3 and {e["merged"] for e in last} == {3}

    wait_for(both_merged, "rounds with everybody's work")
    for node in hidden:
        other = next(h.name for h in hidden if h is not node)
        rows = {row["name"]: row for row in status(world, node)["peers"]}
        assert rows["founder"]["alive"]
        assert not rows[other]["alive"], "nobody opened a connection between the two"
        assert rows[other]["participating"] and rows[node.name]["participating"]
        assert {e["own_merged"] for e in node.events("round_committed")[-2:]} == {True}
    roots = [{e["round"]: e["root"] for e in n.events("round_committed")} for n in (founder, *hidden)]
    common = set(roots[0]) & set(roots[1]) & set(roots[2])
    assert common and all(roots[0][r] == roots[1][r] == roots[2][r] for r in common)

    for node in hidden:
        wait_for(lambda n=node: status(world, n)["reachable"] is False, "the verdict of who tried to connect back")
        told = status(world, node)
        assert told["reach"].startswith("nobody could connect to you from outside: founder tried (nobody answered at ")
        assert "you take part over connections that you opened" in told["reach"]
        assert told["reach_advice"].startswith(f"open port {PORT} to the outside")
        shown = world.run("status", "--state-dir", node.folder).out
        assert told["reach"] in shown and told["reach_advice"] in shown
        words = ["doctor", "--json", "--listen", f":{PORT}", "--state-dir", str(node.folder)]
        found = {f["what"]: f for f in world.run(*words).json["findings"]}
        assert found["inbound"]["verdict"] == "warn"
        assert found["inbound"]["found"] == told["reach"]
        assert found["inbound"]["advice"] == told["reach_advice"]
        assert found["port"]["verdict"] == "ok", "the node that runs here has it"
        assert any(told["reach"] in e["reason"] for e in node.events("reach"))
    told = status(world, founder)
    assert told["reachable"] is True
    probe = [*held.peers["home"]["enter"], str(world.binary), "probe", ticket, "--json"]
    said = json.loads(subprocess.run(probe, capture_output=True, text=True, env=world.environment).stdout)
    assert said["ok"] and said["reachable"] is True and said["reach"] == told["reach"]


@pytest.mark.parametrize("closed", ["ipv4", "ipv6"])
def test_of_two_families_the_one_that_answers_is_used(world, lab, closed):
    held = lab(THREE)
    if "address6" not in held.peers["founder"]:
        pytest.skip("no IPv6 here")
    set_firewall(held, "founder", NO_FAMILY.format(family=closed))
    founder = start(world, held, "founder", "run", run_file(world, 2))
    ticket = founder.ready()["ticket"]
    open_host = {"ipv4": f"[{held.peers['founder']['address6']}]", "ipv6": held.peers["founder"]["address"]}[closed]
    # It advertises what its machine has, and the ticket names both.
    assert held.peers["founder"]["address"] in ticket and held.peers["founder"]["address6"] in ticket
    home = start(world, held, "home", "join", ticket)
    home.wait_for_round(3)
    assert {e["address"] for e in home.events("peer_up")} == {f"{open_host}:{PORT}"}
    wait_for(lambda: status(world, home)["reachable"], "the verdict of who connected back")


def test_each_family_alone_is_enough(world, lab):
    held = lab(THREE)
    if "address6" not in held.peers["founder"]:
        pytest.skip("no IPv6 here")
    founder = start(world, held, "founder", "run", run_file(world, 3))
    ticket = founder.ready()["ticket"]
    addresses, key = ticket.removeprefix("longhaul://").split("/")
    by_family = {"home": addresses.split(",")[0], "office": addresses.split(",")[1]}
    assert by_family["office"].startswith("[") and not by_family["home"].startswith("[")
    joined = {peer: start(world, held, peer, "join", f"longhaul://{a}/{key}") for peer, a in by_family.items()}
    for peer, node in joined.items():
        node.wait_for_round(2)
        first = node.events("peer_up")[0]
        assert first["name"] == "founder" and first["address"] == by_family[peer]
