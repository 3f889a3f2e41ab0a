"""scripts/stages.py: how a stage is built, with the commands recorded instead of run."""

import stages


def build(tmp_path, monkeypatch, ok, cache=None):
    """The commands of one build, of which those that `ok` refuses fail."""
    folder = tmp_path / "build" / "dev"
    if cache is not None:
        folder.mkdir(parents=True)
        (folder / "CMakeCache.txt").write_text(cache)
    ran = []

    def run(*command, env=None):
        words = [str(c) for c in command]
        ran.append(words)
        if "--preset" in words:
            folder.mkdir(parents=True, exist_ok=True)
            for word in words:
                if word.startswith("-DLONGHAUL_UNITY="):
                    (folder / "CMakeCache.txt").write_text(f"LONGHAUL_UNITY:BOOL={word.split('=')[1]}\n")
        return ok(words)

    monkeypatch.setattr(stages, "ROOT", tmp_path)
    monkeypatch.setattr(stages, "run", run)
    return stages.build("dev", "core_test", unity=True), ran


def test_a_new_folder_compiles_files_together(tmp_path, monkeypatch):
    built, ran = build(tmp_path, monkeypatch, lambda words: True)
    assert built and len(ran) == 2 and "-DLONGHAUL_UNITY=ON" in ran[0]
    assert ran[1][:5] == ["cmake", "--build", "build/dev", "--target", "core_test"]


def test_names_that_clash_are_no_failure(tmp_path, monkeypatch):
    done = []
    built, ran = build(tmp_path, monkeypatch, lambda words: "--build" not in words or bool(done) or done.append(words))
    assert built and len(ran) == 4 and "-DLONGHAUL_UNITY=OFF" in ran[2] and ran[3] == ran[1]


def test_a_folder_that_somebody_works_in_stays_as_it_is(tmp_path, monkeypatch):
    cache = "LONGHAUL_UNITY:BOOL=OFF\n"
    built, ran = build(tmp_path, monkeypatch, lambda words: "--build" not in words, cache)
    assert not built and len(ran) == 2
    assert not any("UNITY" in word for words in ran for word in words)


def test_a_folder_that_does_not_configure_is_not_built(tmp_path, monkeypatch):
    built, ran = build(tmp_path, monkeypatch, lambda words: False)
    assert not built and len(ran) == 1
