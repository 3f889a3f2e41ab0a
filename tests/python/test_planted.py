"""The bugs to plant still fit the source: each changes one place that is there."""

import pathlib
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_planted_bug_has_its_place():
    bugs = tomllib.loads((ROOT / "tests" / "planted" / "bugs.toml").read_text())["bug"]
    assert len(bugs) >= 20 and len({bug["name"] for bug in bugs}) == len(bugs)
    for bug in bugs:
        assert (ROOT / bug["file"]).read_text().count(bug["find"]) == 1, bug["name"]
        assert bug["replace"] != bug["find"], bug["name"]
