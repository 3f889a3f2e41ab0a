"""scripts/stages.py: how a stage is built, with the commands recorded instead of run."""

import pytest
import stages


class Builds:
    """One build's commands. Each attempt to compile fails by the targets that `clashes` holds for it."""

    def __init__(self, tmp_path, monkeypatch, clashes=(), cache=None, configures=True):
        self.cache = tmp_path / "build" / "dev" / "CMakeCache.txt"
        self.clashes, self.configures = list(clashes), configures
        self.ran: list[list[str]] = []
        if cache is not None:
            self.cache.parent.mkdir(parents=True)
            self.cache.write_text(cache)
        monkeypatch.setattr(stages, "ROOT", tmp_path)
        monkeypatch.setattr(stages, "run", self.configure)
        monkeypatch.setattr(stages, "run_noting", self.compile)
        self.ok = stages.build("dev", "core_test", unity=True)

    def configure(self, *command):
        self.ran.append([str(c) for c in command])
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        if "-DLONGHAUL_UNITY=ON" in command:
            self.cache.write_text("LONGHAUL_UNITY:BOOL=ON\n")
        return self.configures

    def compile(self, pattern, *command):
        self.ran.append([str(c) for c in command])
        failed = self.clashes.pop(0) if self.clashes else []
        return not failed, failed


def test_a_new_folder_compiles_files_together(tmp_path, monkeypatch):
    builds = Builds(tmp_path, monkeypatch)
    assert builds.ok and len(builds.ran) == 2 and "-DLONGHAUL_UNITY=ON" in builds.ran[0]
    assert builds.ran[1][:5] == ["cmake", "--build", "build/dev", "--target", "core_test"]


def test_files_that_do_not_go_together_are_compiled_apart_and_no_others(tmp_path, monkeypatch):
    builds = Builds(tmp_path, monkeypatch, [["longhaul_sim", "longhaul_sim"], ["longhaul_net"]])
    assert builds.ok and len(builds.ran) == 6 and builds.ran[3] == builds.ran[5] == builds.ran[1]
    assert builds.ran[2][-1] == "-DLONGHAUL_APART=longhaul_sim"
    assert builds.ran[4][-1] == "-DLONGHAUL_APART=longhaul_net;longhaul_sim"


def test_a_file_that_does_not_compile_fails_the_build(tmp_path, monkeypatch):
    assert not Builds(tmp_path, monkeypatch, [["longhaul_sim"], ["longhaul_sim"], []]).ok


def test_a_folder_that_somebody_works_in_stays_as_it_is(tmp_path, monkeypatch):
    builds = Builds(tmp_path, monkeypatch, [["longhaul_sim"]], "LONGHAUL_UNITY:BOOL=OFF\n")
    assert not builds.ok and len(builds.ran) == 2
    assert not any("UNITY" in word for words in builds.ran for word in words)


def test_a_folder_that_does_not_configure_is_not_built(tmp_path, monkeypatch):
    builds = Builds(tmp_path, monkeypatch, configures=False)
    assert not builds.ok and len(builds.ran) == 1


def test_what_a_compiler_says_of_a_target_is_noted(capfd):
    text = "FAILED: sim/CMakeFiles/longhaul_sim.dir/Unity/unity_1_cxx.cxx.o\nFAILED: a/CMakeFiles/b.dir/c.cpp.o"
    ok, noted = stages.run_noting(r"FAILED: .*?(\w+)\.dir/Unity/", "sh", "-c", f"echo '{text}'; false")
    assert not ok and noted == ["longhaul_sim"]
    assert text in capfd.readouterr().out


def test_a_program_that_fails_without_a_case_or_tests_nothing_is_a_failure():
    count = stages.Count
    assert stages.accounted("x", True, count(passed=3, skipped=1)) == count(passed=3, skipped=1)
    assert stages.accounted("x", False, count(failed=1, failures=["a"])) == count(failed=1, failures=["a"])
    assert stages.accounted("x", True, count(skipped=2)) == count(skipped=2)
    died = stages.accounted("x", False, count(passed=3))
    assert (died.passed, died.failed, died.failures) == (3, 1, ["x failed without a failing case"])
    assert stages.accounted("x", True, count()).failures == ["x ran no test"]


def test_a_pytest_that_dies_at_its_end_is_a_failure(tmp_path, monkeypatch):
    def run(*command, env):
        report = next(str(c) for c in command if "--junitxml" in str(c)).partition("=")[2]
        stages.pathlib.Path(report).write_text("<testsuites><testsuite><testcase name='a'/></testsuite></testsuites>")
        return False

    monkeypatch.setattr(stages, "REPORTS", tmp_path)
    monkeypatch.setattr(stages, "run", run)
    assert stages.python().failures == [f"pytest {n} failed without a failing case" for n in ("beside", "alone")]


# --- a second look ------------------------------------------------------------------------------------------------


def junit(tmp_path, **words_of_failed):
    """A report with one passed test and these failed ones."""
    failed = "".join(f'<testcase name="{n}"><failure/><system-out>{w}</system-out></testcase>'
                     for n, w in words_of_failed.items())  # fmt: skip
    path = tmp_path / "junit.xml"
    path.write_text(f'<testsuite><testcase name="good"/>{failed}</testsuite>')
    return stages.read_junit(path, "dev")


def never():
    raise AssertionError("there is nothing to look at again")


def test_what_fails_beside_others_and_passes_alone_is_called_flaky(tmp_path):
    first = junit(tmp_path, one="FAILED: 1 == 2", two="FAILED: late")
    second = stages.Count(passed=1, failed=1, failures=["dev: two"])
    count = stages.second_look(first, lambda: second)
    assert (count.passed, count.failed, count.failures, count.flaky) == (2, 1, ["dev: two"], ["dev: one"])


@pytest.mark.parametrize("words", ["ERROR: AddressSanitizer: heap", "a.cpp:3: runtime error: shift", "SIGSEGV"])
def test_a_memory_error_is_never_excused(tmp_path, words):
    first = junit(tmp_path, one=words, two="FAILED: late")
    assert stages.second_look(first, never) == first and first.failed == 2


def test_many_failures_are_no_accident(tmp_path):
    first = junit(tmp_path, a="", b="", c="", d="")
    assert stages.second_look(first, never) == first


def test_a_second_run_that_lost_a_test_excuses_none(tmp_path):
    first = junit(tmp_path, one="", two="")
    assert stages.second_look(first, lambda: stages.Count(passed=1)) == first


def test_counts_add_up():
    total = stages.Count(1, 1, 1, ["a"], ["a"], []) + stages.Count(2, 0, 0, [], [], ["b"])
    assert total == stages.Count(3, 1, 1, ["a"], ["a"], ["b"])
    assert total.summary() == "3 passed, 1 failed, 1 skipped"
