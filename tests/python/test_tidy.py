"""Each rule of scripts/tidy fires on a planted violation, and only that one."""

import importlib.machinery
import importlib.util
import json
import pathlib
import shutil

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_tidy():
    loader = importlib.machinery.SourceFileLoader("tidy", str(ROOT / "scripts" / "tidy"))
    spec = importlib.util.spec_from_loader("tidy", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


tidy = load_tidy()
needs_format = pytest.mark.skipif(not shutil.which(tidy.CLANG_FORMAT), reason=f"{tidy.CLANG_FORMAT} is not installed")


def findings(tmp_path: pathlib.Path, name: str, text: str, with_format: bool = False):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return [(f.rule, f.line) for f in tidy.check_tree(tmp_path, with_format)]


UNFINISHED = "TO" + "DO"

PLANTED = [
    ("core/a.cpp", '#include "net/link.hpp"\n', "layers"),
    ("net/a.cpp", '#include "peers/peer.hpp"\n', "layers"),
    ("compress/a.cpp", '#include "optim/outer.hpp"\n', "layers"),
    ("optim/a.cpp", '#include "peers/peer.hpp"\n', "layers"),
    ("peers/a.cpp", '#include "sim/world.hpp"\n', "layers"),
    ("sim/a.cpp", '#include "tests/test.hpp"\n', "layers"),
    ("compress/cuda/a.cu", '#include "net/link.hpp"\n', "layers"),
    ("core/b.cpp", '#include "compress/cuda/a.hpp"\n', "layers"),
    ("sim/lab/a.cpp", '#include "tests/test.hpp"\n', "layers"),
    ("peers/a.cpp", '#include "sim/lab/network.hpp"\n', "layers"),
    ("compress/a.cpp", "#include <cub/cub.cuh>\n", "ban"),
    ("sim/lab/a.cpp", "std::thread t{f};\n", "ban"),
    ("sim/lab/a.cpp", "std::unordered_map<int, int> m;\n", "order"),
    ("compress/cuda/a.cuh", "struct a {};\n", "header"),
    ("net/a.cpp", '#include "../core/result.hpp"\n', "layers"),
    ("peers/a.cpp", "auto t = std::chrono::steady_clock::now();\n", "ban"),
    ("peers/a.cpp", "auto t = system_clock::now();\n", "ban"),
    ("core/a.cpp", "std::random_device d;\n", "ban"),
    ("net/a.cpp", "randombytes_buf(p, 32);\n", "ban"),
    ("net/a.cpp", "std::this_thread::sleep_for(1s);\n", "ban"),
    ("net/a.cpp", "usleep(5);\n", "ban"),
    ("net/a.cpp", "::sleep(5);\n", "ban"),
    ("peers/a.cpp", "asio::steady_timer t{io};\n", "ban"),
    ("optim/a.cpp", "std::thread t{f};\n", "ban"),
    ("optim/a.cpp", "auto f = std::async(g);\n", "ban"),
    ("net/link.cpp", "#include <asio/ip/tcp.hpp>\n", "ban"),
    ("optim/a.cpp", "#include <torch/torch.h>\n", "ban"),
    ("compress/a.cpp", "#include <cuda_runtime.h>\n", "ban"),
    ("net/a.cpp", "#include <asio.hpp>\n", "ban"),
    ("peers/a.cpp", "co_spawn(e, f(), asio::detached);\n", "ban"),
    ("sim/a.cpp", "std::unordered_map<int, int> m;\n", "order"),
    ("core/a.hpp", "#include <vector>\n", "header"),
    ("core/a.hpp", "#pragma once\n#pragma once\n", "header"),
    ("core/a.hpp", "#pragma once\n#include <nlohmann/json.hpp>\n", "header"),
    ("net/a.hpp", '#pragma once\n#include "net/wire.pb.h"\n', "header"),
    ("core/a.hpp", "#pragma once\nusing namespace std;\n", "header"),
    ("tests/unit/a_test.cpp", 'TEST_CASE("unit lies in [0, 1)") {}\n', "test name"),
    ("tests/unit/a_test.cpp", 'TEST_CASE(\n    "this; that", "[tag]") {}\n', "test name"),
    ("core/a.cpp", "int a; \n", "text"),
    ("core/a.cpp", "\tint a;\n", "text"),
    ("core/a.cpp", f"// {UNFINISHED}: later\n", "text"),
    ("core/a.cpp", "int a;", "text"),
    ("core/a.cpp", f"// {'x' * 120}\n", "text"),
    ("core/a.cpp", "int a;\n" * 701, "text"),
]


@pytest.mark.parametrize(("name", "text", "rule"), PLANTED)
def test_rule_fires(tmp_path, name, text, rule):
    assert {r for r, _ in findings(tmp_path, name, text)} == {rule}


TWO_FILES = [
    ("struct a {\n    int x;\n};\n", "struct a {\n    char x;\n};\n", True),
    ("constexpr int most = 3;\n", "constexpr std::size_t most = 4;\n", True),
    ("double mean(const v& a, int n) {\n}\n", "double mean(const v& b, int m) {\n}\n", True),
    ("struct a;\n", "struct a {};\n", False),
    ("void f(int a) {\n}\n", "void f(char a) {\n}\n", False),
    ("void a::f() {\n}\n", "void b::f() {\n}\n", False),
    ("struct a {\n    int most = 3;\n};\n", "constexpr int most = 3;\n", False),
]


@pytest.mark.parametrize(("one", "two", "clash"), TWO_FILES)
def test_files_that_do_not_compile_as_one(tmp_path, one, two, clash):
    (tmp_path / "net").mkdir()
    for file, text in (("a", one), ("b", two)):
        (tmp_path / "net" / f"{file}.cpp").write_text(f"namespace {{\n{text}}}  // namespace\nint most;\n")
    found = {(f.rule, f.path) for f in tidy.check_tree(tmp_path, False)}
    assert found == ({("unity", "net/b.cpp")} if clash else set())


ALLOWED = [
    ("net/asio_network.cpp", "#include <asio/ip/tcp.hpp>\nauto t = steady_clock::now();\n"),
    ("core/task.cpp", "asio::steady_timer t{io};\n"),
    ("core/thread_workers.cpp", "std::thread t{f};\n"),
    ("optim/torch/gpt.cpp", "#include <torch/torch.h>\n"),
    ("compress/cuda/a.cu", "#include <cuda_runtime.h>\n"),
    ("compress/cuda/a.cpp", '#include "compress/codec.hpp"\n#include "core/result.hpp"\n'),
    ("peers/command/sim.cpp", '#include "sim/world.hpp"\n'),
    ("sim/lab/a.cpp", '#include "peers/peer.hpp"\n#include "net/link.hpp"\n'),
    ("tests/unit/a.cpp", '#include "sim/world.hpp"\nstd::thread t{f};\n'),
    ("peers/a.cpp", "// steady_clock::now is banned\n/* std::thread */ const char* s = \"std::thread\";\n"),
    ("core/a.hpp", "#pragma once\nusing namespace std::chrono_literals;\n"),
    ("optim/a.cpp", "std::unordered_map<int, int> m;\n"),
    ("tests/unit/a_test.cpp", 'TEST_CASE("plain, and: fine", "[tag]") {}\n'),
    ("sim/a.cpp", "co_await process::sleep(5);\nco_await sleep(5);\n"),
    ("core/a.cpp", "int a;\n" * 699),
]


@pytest.mark.parametrize(("name", "text"), ALLOWED)
def test_rule_leaves_alone(tmp_path, name, text):
    assert findings(tmp_path, name, text) == []


def test_line_numbers_survive_comments(tmp_path):
    text = "/* two\n lines */\n// one\nstd::thread t{f};\n"
    assert findings(tmp_path, "net/a.cpp", text) == [("ban", 4)]


@needs_format
def test_format_fires(tmp_path):
    shutil.copy(ROOT / ".clang-format", tmp_path)
    assert findings(tmp_path, "core/a.cpp", "int   a;\n", with_format=True) == [("format", 1)]
    assert findings(tmp_path, "core/a.cpp", "int a;\n", with_format=True) == []


def test_this_tree_is_checked():
    """The rules look at real files: a walk that finds nothing would pass for ever."""
    names = [n for n in tidy.tracked_files(ROOT) if tidy.is_source(n)]
    assert len(names) > 20
    assert "core/task.cpp" in names


# -- clang-tidy --------------------------------------------------------------------------------------------------------

needs_clang_tidy = pytest.mark.skipif(not shutil.which(tidy.CLANG_TIDY), reason=f"{tidy.CLANG_TIDY} is not installed")
STRAY_SEMICOLON = """#include "core/a.hpp"
namespace {
int %s(int x) {
    if (x > 1);
        x = 1;
    return x;
}
}  // namespace
int use_of_%s() { return %s(2); }
"""


@pytest.fixture
def small_tree(tmp_path):
    """Two files of one folder, and the compile database of a build that compiles each by itself."""
    shutil.copy(ROOT / ".clang-tidy", tmp_path)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.hpp").write_text("#pragma once\nstruct box { int value = 0; };\n")
    build = tmp_path / "build"
    build.mkdir()

    def write(**texts: str) -> pathlib.Path:
        entries = []
        for name, text in texts.items():
            path = tmp_path / "core" / f"{name}.cpp"
            path.write_text(text)
            command = f"clang++-19 -I{tmp_path} -std=c++20 -O1 -Werror -o {name}.o -c {path}"
            entries.append({"directory": str(build), "file": str(path), "command": command})
        (build / "compile_commands.json").write_text(json.dumps(entries))
        return build

    return write


def test_flags_are_what_parsing_needs():
    command = "clang++-19 -DA=1 -I/x -isystem /y -O1 -g1 -fsanitize=address -Wall -std=c++20 -o a.o -c /x/a.cpp"
    assert tidy.compile_flags(command) == ("-DA=1", "-I/x", "-isystem", "/y", "-std=c++20", "-w")


def test_batches_have_one_folder_and_one_set_of_flags():
    entries = {f"core/{i}.cpp": ("c++ -DA", "/b") for i in range(10)}
    entries |= {"core/x.cpp": ("c++ -DB", "/b"), "net/x.cpp": ("c++ -DA", "/b")}
    batches = tidy.make_batches(sorted(entries), entries)
    assert [len(b.names) for b in batches] == [5, 5, 1, 1]
    assert sorted(n for b in batches for n in b.names) == sorted(entries)


@needs_clang_tidy
def test_a_finding_is_told_until_it_is_gone(tmp_path, small_tree, capsys):
    build = small_tree(one=STRAY_SEMICOLON % (("f",) * 3), two="int two() { return 2; }\n")
    assert tidy.clang_tidy(tmp_path, build, 1, False) == 1
    out = capsys.readouterr().out
    assert "core/one.cpp:4:" in out and "bugprone-suspicious-semicolon" in out and "1 finding\n" in out
    build = small_tree(one="int one() { return 1; }\n", two="int two() { return 2; }\n")
    assert tidy.clang_tidy(tmp_path, build, 1, False) == 0
    assert "on 2 of 2 files, in 1 batches" in capsys.readouterr().out
    assert tidy.clang_tidy(tmp_path, build, 1, False) == 0
    assert "on 0 of 2 files" in capsys.readouterr().out
    (tmp_path / "core" / "two.cpp").write_text("int two() { return 3; }\n")
    assert tidy.clang_tidy(tmp_path, build, 1, False) == 0
    assert "on 1 of 2 files" in capsys.readouterr().out


@needs_clang_tidy
def test_files_that_do_not_go_together_are_read_apart(tmp_path, small_tree, capsys):
    build = small_tree(one=STRAY_SEMICOLON % ("f", "one", "f"), two=STRAY_SEMICOLON % ("f", "two", "f"))
    assert tidy.clang_tidy(tmp_path, build, 1, False) == 1
    out = capsys.readouterr().out
    assert "core/one.cpp:4:" in out and "core/two.cpp:4:" in out and "redefinition" not in out


@needs_clang_tidy
def test_a_file_that_does_not_compile_is_a_finding(tmp_path, small_tree, capsys):
    build = small_tree(one="int one() { return nothing; }\n")
    assert tidy.clang_tidy(tmp_path, build, 1, False) == 1
    assert "nothing" in capsys.readouterr().out


def test_files_of_a_unity_build_are_found(tmp_path):
    unit = tmp_path / "unity_0_cxx.cxx"
    unit.write_text('/* generated by CMake */\n\n#include "/x/core/a.cpp"\n\n#include "/x/core/b.cpp"\n')
    assert tidy.sources_of(unit) == [pathlib.Path("/x/core/a.cpp"), pathlib.Path("/x/core/b.cpp")]
    assert tidy.sources_of(pathlib.Path("/x/core/a.cpp")) == [pathlib.Path("/x/core/a.cpp")]
