"""The lab without root: a user with no capability, in a user namespace; and where the device is root's, what to do.

Whether a user may open /dev/net/tun differs between machines, so each case mounts one of its own, for itself alone.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from nodes import clean_environment, find_binary

NOBODY = 65534
SCENARIO = """
[run]
stop.rounds = 2
model = { kind = "quadratic", width = 1000 }
inner = { optimizer = "sgd", lr = 0.05, weight_decay = 0.0, steps = 2, warmup = 0, schedule = "constant" }
peers = { min = 2 }
eval.every = 0
[links]
rtt = "10 ms"
[[peer]]
name = "a"
[[peer]]
name = "b"
[expect]
rounds = 2
"""
AS_NOBODY = """
as_nobody="setpriv --reuid={who} --regid={who} --clear-groups --inh-caps=-all --bounding-set=-all"
mount -t tmpfs none /dev/net && mknod /dev/net/tun c 10 200 && chmod {mode} /dev/net/tun &&
    $as_nobody unshare --user true || exit 42
exec $as_nobody "$@"
"""


@pytest.fixture
def open_folder():
    """A folder that is nobody's own; pytest's are for the user who runs it alone."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="longhaul-nobody-"))
    shutil.copy(find_binary(), folder / "longhaul")
    (folder / "scenario.toml").write_text(SCENARIO)
    for path in (folder, *folder.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def lab_as_nobody(folder, mode):
    script = AS_NOBODY.format(mode=mode, who=NOBODY)
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "as-nobody"]
    words += [folder / "longhaul", "lab", folder / "scenario.toml", "--json"]
    environment = {**clean_environment(folder), "TMPDIR": str(folder), "HOME": str(folder)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment, cwd=folder)
    if done.returncode == 42 or done.stderr.startswith("unshare:"):
        pytest.skip(f"neither mounts nor user namespaces for nobody here: {done.stderr}")
    return done


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be another user")


@needs_root
def test_a_user_without_capabilities_runs_it_and_leaves_nothing(open_folder):
    done = lab_as_nobody(open_folder, "0666")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] and told["rounds"] == 2
    assert {p["applied"] for p in told["peers"].values()} == {2}
    assert {p.name for p in open_folder.iterdir()} == {"longhaul", "scenario.toml"}


@needs_root
def test_where_the_device_is_roots_it_says_what_to_do(open_folder):
    done = lab_as_nobody(open_folder, "0600")
    assert done.returncode == 78
    assert "the lab cannot open /dev/net/tun: Permission denied" in done.stderr
    assert 'allow it with "sudo chmod 0666 /dev/net/tun"' in done.stderr
