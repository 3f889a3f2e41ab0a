"""The bugs to plant still fit the source: each changes one place that is there."""

import pathlib
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def read(name: str) -> list[dict]:
    return tomllib.loads((ROOT / "tests" / "planted" / name).read_text())["bug"]


def test_every_planted_bug_has_its_place():
    assert len(read("bugs.toml")) >= 20
    bugs = read("bugs.toml") + read("open.toml")
    assert len({bug["name"] for bug in bugs}) == len(bugs)
    for bug in bugs:
        assert (ROOT / bug["file"]).read_text().count(bug["find"]) == 1, bug["name"]
        assert bug["replace"] != bug["find"], bug["name"]
