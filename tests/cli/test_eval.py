"""`ppv eval` with a small model: which clips, which protocol, what is printed and what is written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ppvcli.configs.load import load_config
from ppvcli.datasets.catalog import open_split
from ppvcli.datasets.split_file import write_split
from ppvcli.video.protocols import PROTOCOLS
from ppvcli.video.render import write_video
from tests.small_model import LABELS, moving_block, write_weights

Ppv = Callable[..., Any]
FILES = ["confusion.csv", "confusion.png", "per_class.csv", "predictions.jsonl", "report.json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, five clips in class folders, and the same clips in a list and in a CSV file."""
    folder = tmp_path_factory.mktemp("eval")
    write_weights(folder / "w.safetensors")
    rows = [(0, "jump"), (1, "wave one hand"), (1, "wave one hand"), (2, "wave two hands"), (2, "wave two hands")]
    for i, (_, label) in enumerate(rows):
        path = folder / "clips" / label / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_block(24, step=i + 1))
    paths = [f"clips/{label}/{i}.mp4" for i, (_, label) in enumerate(rows)]
    lines = [f"{path} {index}" for path, (index, _) in zip(paths, rows, strict=True)]
    (folder / "val.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = ["path,label", *(f"{path},{label}" for path, (_, label) in zip(paths, rows, strict=True))]
    (folder / "val.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    (folder / "one.list").write_text(f"{lines[0]}\n", encoding="utf-8")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    (folder / "mine.yaml").write_text(
        "model: {name: tsm_efflite0}\nepochs: 1\nbatch_size: 2\n"
        f"data: {{root: {folder}, train_list: val.list, val_list: val.list, labels: labels.txt}}\n"
        "optimizer: {name: adamw, learning_rate: 1e-3}\n",
        encoding="utf-8",
    )
    return folder


def run(ppv: Ppv, folder: Path, out: Path, *args: object) -> dict[str, Any]:
    answer = ppv("eval", "--weights", folder / "w.safetensors", "--workers", "0", "--out", out, "--json", *args)
    assert answer.exit_code == 0, answer.stderr
    assert answer.stderr == f"report and tables: {out}\n"
    return json.loads(answer.stdout)


def test_clips_may_be_named_in_any_way_and_the_figures_stay(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    ways = {
        "folders": ("--data", folder / "clips"),
        "list": ("--data", folder / "val.list"),
        "csv": ("--data", folder / "val.csv"),
        "list_option": ("--data", folder, "--list", "val.list"),
        "config": ("--config", folder / "mine.yaml"),
        "batches": ("--data", folder / "val.list", "--batch-size", "3"),
    }
    reports = {name: run(ppv, folder, tmp_path / name, *args) for name, args in ways.items()}
    sources = {name: report.pop("setup")["data"] for name, report in reports.items()}
    assert sources["csv"] == str(folder / "val.csv")
    assert sources["config"] == f"held out of {folder}"
    losses = {name: report.pop("loss") for name, report in reports.items()}
    # other batches add float32 numbers in another order
    assert losses == {name: pytest.approx(losses["folders"], abs=1e-5) for name in ways}
    for report in reports.values():
        assert report["num_clips"] == 5
        assert report["classes"] == reports["folders"]["classes"]
        assert [clip[1:] for clip in report["wrong"]] == [clip[1:] for clip in reports["folders"]["wrong"]]
    assert sorted(path.name for path in (tmp_path / "csv").glob("[!.]*")) == FILES


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocol_decides_the_views_and_stands_in_the_report(
    protocol: str, folder: Path, tmp_path: Path, ppv: Ppv
) -> None:
    setup = run(ppv, folder, tmp_path / "out", "--data", folder / "one.list", "--protocol", protocol)["setup"]
    views = {
        "uniform": "8 frames x whole frame",
        "dense": "8 frames x 10 clips x 3 crops",
        "ten-crop": "8 frames x 10 crops",
    }
    assert (setup["protocol"], setup["views"]) == (protocol, views[protocol])
    assert setup["preprocess"]["resize"]["size_hw"] == ([96, 96] if protocol == "uniform" else [110, 110])
    assert len(setup["weights_sha256"]) == 64
    assert {"python", "paddlepaddle", "numpy"} <= set(setup["versions"])


def test_report_goes_below_the_working_directory_unless_told(
    folder: Path, tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ("--weights", folder / "w.safetensors", "--data", folder / "val.list", "--workers", "0")
    first = ppv("eval", *args)
    assert first.exit_code == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0] == "class\tclips\tcorrect\trecall\tprecision\tf1"
    assert [line.split("\t")[0] for line in lines[1:4]] == list(LABELS)
    assert lines[-2].startswith("own protocol, 8 frames x whole frame, ")
    assert lines[-1].startswith("tsm_efflite0: top-1 ")
    assert first.stderr == "report and tables: eval/w-val-own\n"
    assert sorted(path.name for path in Path("eval/w-val-own").glob("[!.]*")) == FILES
    second = ppv("eval", *args, "--protocol", "uniform")
    assert second.stderr == "report and tables: eval/w-val-uniform\n"


def test_report_of_a_run_goes_into_the_run_folder(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "best").mkdir(parents=True)
    shutil.copy(folder / "w.safetensors", run_dir / "best" / "weights.safetensors")
    shutil.copy(folder / "mine.yaml", run_dir / "config.yaml")
    answer = ppv("eval", "--weights", run_dir, "--workers", "0")
    assert answer.exit_code == 0, answer.stderr
    assert answer.stderr == f"report and tables: {run_dir}/eval/held-out-own\n"


@pytest.fixture
def run_of_folders(folder: Path, tmp_path: Path) -> Path:
    """A run on class folders that wrote down its clips: three to train on, two held out."""
    run_dir, root = tmp_path / "run", tmp_path / "clips"
    (run_dir / "best").mkdir(parents=True)
    shutil.copy(folder / "w.safetensors", run_dir / "best" / "weights.safetensors")
    shutil.copytree(folder / "clips", root)
    (run_dir / "config.yaml").write_text(
        "model: {name: tsm_efflite0}\nepochs: 1\nbatch_size: 2\n"
        f"data: {{root: {root}, val_ratio: 0.5}}\noptimizer: {{name: adamw, learning_rate: 1e-3}}\n",
        encoding="utf-8",
    )
    write_split(run_dir / "split.jsonl", open_split(load_config(str(run_dir / "config.yaml")).data, seed=0), root=root)
    return run_dir


def evaluated(ppv: Ppv, *args: object) -> tuple[list[str], str, str]:
    """Names of the clips, the folder that the report is in, and what stderr says besides it."""
    answer = ppv("eval", "--workers", "0", *args)
    assert answer.exit_code == 0, answer.stderr
    told, _, folder = answer.stderr.rstrip("\n").rpartition("report and tables: ")
    lines = (Path(folder) / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted(Path(json.loads(line)["path"]).name for line in lines), Path(folder).name, told


def test_clips_added_after_a_run_began_are_not_among_those_it_held_out(
    run_of_folders: Path, tmp_path: Path, ppv: Ppv
) -> None:
    clips, name, told = evaluated(ppv, "--weights", run_of_folders)
    assert (len(clips), name, told) == (2, "held-out-own", "")
    for i in range(5, 9):
        shutil.copy(tmp_path / "clips" / "jump" / "0.mp4", tmp_path / "clips" / "jump" / f"{i}.mp4")
    note = "4 clips are newer than the run and not in it\n"
    assert evaluated(ppv, "--weights", run_of_folders) == (clips, name, f"held out of {tmp_path}/clips: {note}")
    config = ("--config", run_of_folders / "config.yaml")
    own = evaluated(ppv, *config, "--weights", run_of_folders)
    assert own == (clips, "clips-held-out-own", f"held out of {tmp_path}/clips: {note}")
    assert evaluated(ppv, *config, "--weights", run_of_folders, "--set", "data.num_workers=0") == own
    drawn, _, told = evaluated(ppv, *config, "--weights", run_of_folders, "--set", "data.val_ratio=0.4")
    assert len(drawn) == 4
    assert "newer" not in told
    (run_of_folders / "split.jsonl").unlink()  # as in runs of earlier versions
    drawn, _, told = evaluated(ppv, "--weights", run_of_folders)
    assert (len(drawn), told) == (4, "")


def test_moved_clips_that_a_run_held_out_are_measured_as_the_hint_says(
    run_of_folders: Path, tmp_path: Path, ppv: Ppv
) -> None:
    clips, _, _ = evaluated(ppv, "--weights", run_of_folders)
    moved = (tmp_path / "clips").rename(tmp_path / "moved")
    lost = ppv("eval", "--weights", run_of_folders, "--workers", "0")
    assert lost.exit_code == 1
    args = ["--config", run_of_folders / "config.yaml", "--data", moved, "--weights", run_of_folders]
    assert lost.stderr.endswith(f"ppv eval {' '.join(map(str, args))}\n".replace(str(moved), "DIR"))
    assert evaluated(ppv, *args) == (clips, "moved-held-out-own", "")


@pytest.mark.parametrize("is_moved", [False, True], ids=["in_place", "moved"])
def test_clips_that_a_run_was_trained_on_are_warned_of(
    is_moved: bool, run_of_folders: Path, tmp_path: Path, ppv: Ppv
) -> None:
    root = tmp_path / "clips"
    if is_moved:
        root = root.rename(tmp_path / "moved")
    clips, name, told = evaluated(ppv, "--weights", run_of_folders, "--data", root)
    assert (len(clips), name) == (5, f"{root.name}-own")
    assert told == (
        f"warning: 3 of these 5 clips are among those that {run_of_folders} was trained on; "
        f"ppv eval --weights {run_of_folders} takes those held out\n"
    )
    answer = ppv("eval", "--weights", run_of_folders, "--data", root, "--workers", "0", "--json")
    assert json.loads(answer.stdout)["setup"]["num_trained_on"] == 3


def test_clips_of_the_same_names_elsewhere_are_not_taken_for_those_of_the_run(
    run_of_folders: Path, tmp_path: Path, ppv: Ppv
) -> None:
    shutil.copytree(tmp_path / "clips", tmp_path / "test")
    assert evaluated(ppv, "--weights", run_of_folders, "--data", tmp_path / "test")[2] == ""
    shutil.rmtree(tmp_path / "test" / "jump")
    (tmp_path / "test" / "jump").symlink_to(tmp_path / "clips" / "jump")
    assert "1 of these 5 clips" in evaluated(ppv, "--weights", run_of_folders, "--data", tmp_path / "test")[2]


def test_held_out_clip_that_is_gone_counts_as_wrong(run_of_folders: Path, tmp_path: Path, ppv: Ppv) -> None:
    clips, _, _ = evaluated(ppv, "--weights", run_of_folders)
    next((tmp_path / "clips").rglob(clips[0])).unlink()
    left, _, told = evaluated(ppv, "--weights", run_of_folders)
    assert left == clips
    assert told.startswith("warning: ")
    assert f"{clips[0]}" in told
    assert "(counted as wrong)" in told


@pytest.mark.parametrize("more", [[], ["--skip-broken"]], ids=["strict", "lenient"])
def test_clips_that_can_not_be_decoded_at_all_are_an_error_and_no_report(
    more: list[str], folder: Path, tmp_path: Path, ppv: Ppv
) -> None:
    clip, empty = folder / "clips" / "jump" / "0.mp4", tmp_path / "empty.avi"
    empty.touch()
    (tmp_path / "all.list").write_text(f"gone.mp4 0\n{clip} 0\n{clip} 1\nempty.avi 2\n", encoding="utf-8")
    args = ("--data", tmp_path / "all.list", "--workers", "0", "--max-pixels", "100", "--out", tmp_path / "out")
    answer = ppv("eval", "--weights", folder / "w.safetensors", *args, *more)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.splitlines() == [
        "error: 0 of 4 clips could be evaluated:",
        f"no video at {tmp_path / 'gone.mp4'}: nothing is there",
        f"the frames of {clip} are 80x72, more than 100 pixels",
        f"the frames of {clip} are 80x72, more than 100 pixels",
        f"{empty} is empty: 0 bytes",
        "hint: --max-pixels (data.max_pixels in a config) allows larger ones",
    ]
    assert not (tmp_path / "out").exists()


def test_very_many_clips_that_can_not_be_decoded_are_counted(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    lines = "".join(f"gone{i}.mp4 0\n" for i in range(24))
    (tmp_path / "all.list").write_text(lines, encoding="utf-8")
    args = ("--data", tmp_path / "all.list", "--workers", "0", "--out", tmp_path / "out")
    told = ppv("eval", "--weights", folder / "w.safetensors", *args).stderr.splitlines()
    assert (told[0], len(told)) == ("error: 0 of 24 clips could be evaluated:", 23)
    assert told[-2:] == ["... and 4 more faults", "hint: check the path"]


def test_data_that_is_not_there_or_a_video_is_told_with_what_it_may_be(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    args = ("eval", "--weights", folder / "w.safetensors", "--out", tmp_path / "out", "--data")
    gone, clip = tmp_path / "gone.list", folder / "clips" / "jump" / "0.mp4"
    kinds = "hint: --data takes a folder with a sub-folder of clips for each class, a list, or a CSV file"
    for path, more in ((gone, []), (tmp_path / "gone", ["--list", "val.list"])):
        assert ppv(*args, path, *more).stderr.splitlines() == [f"error: nothing is at {path}", kinds]
    for path, more in ((clip, []), (clip.parent, ["--list", "0.mp4"])):
        answer = ppv(*args, path, *more)
        assert answer.exit_code == 1
        error, hint = answer.stderr.splitlines()
        assert error == f"error: {clip} is a video by its ending, not a text"
        assert hint.endswith(f"for a single one: ppv predict {clip}")


@pytest.mark.parametrize(
    ("args", "exit_code", "error"),
    [
        ([], 2, "no clips to evaluate on"),
        (["--data", "nowhere"], 1, "nothing is at nowhere"),
        (["--list", "val.list"], 2, "a list file needs the folder of its clips"),
        (["--data", "val.list", "--list", "val.list"], 2, "--data val.list is a list itself"),
    ],
)
def test_clips_that_are_not_named_or_not_there_are_told_before_weights_are_fetched(
    args: list[str], exit_code: int, error: str, folder: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppvcli.cli.eval.fetch_weights", lambda name: pytest.fail("fetched for nothing"))
    monkeypatch.chdir(folder)
    answer = ppv("eval", "--model", "pptsmv2", *args)
    assert (answer.exit_code, answer.stdout) == (exit_code, "")
    assert answer.stderr.startswith(f"error: {error}")
    assert "hint: " in answer.stderr


def test_clips_are_by_default_what_those_of_the_run_were(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "best").mkdir(parents=True)
    shutil.copy(folder / "w.safetensors", run_dir / "best" / "weights.safetensors")
    text = (folder / "mine.yaml").read_text(encoding="utf-8").replace("data: {", "data: {format: frames, ")
    (run_dir / "config.yaml").write_text(text, encoding="utf-8")
    clip = tmp_path / "frames" / "jump" / "clip"
    clip.mkdir(parents=True)
    for number, frame in enumerate(moving_block(16), start=1):
        Image.fromarray(frame).save(clip / f"img_{number:05d}.jpg")
    args = ("eval", "--weights", run_dir, "--data", tmp_path / "frames", "--workers", "0", "--json")
    answer = ppv(*args)
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout)["num_clips"] == 1
    assert json.loads(answer.stdout)["failures"] == []
    assert "frames/jump holds no clip" in ppv(*args, "--format", "videos").stderr


def test_classes_in_an_error_are_quoted(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    for name in ("bend, low", "skip"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        shutil.copy(folder / "clips" / "jump" / "0.mp4", tmp_path / "clips" / name / "0.mp4")
    answer = ppv("eval", "--weights", folder / "w.safetensors", "--data", tmp_path / "clips", "--workers", "0")
    assert "does not know: 'bend, low', 'skip'\n" in answer.stderr
    assert "hint: it knows 'jump', 'wave one hand', 'wave two hands'\n" in answer.stderr


def test_broken_clip_is_listed_and_counts_as_wrong_unless_skipped(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    text = (folder / "val.list").read_text(encoding="utf-8").replace("clips/", f"{folder}/clips/")
    (tmp_path / "all.list").write_text(f"{tmp_path}/broken.mp4 0\n{text}", encoding="utf-8")
    args = ("--weights", folder / "w.safetensors", "--data", tmp_path / "all.list", "--workers", "0", "--json")
    strict = ppv("eval", *args, "--out", tmp_path / "strict")
    lenient = ppv("eval", *args, "--out", tmp_path / "lenient", "--skip-broken")
    assert strict.stderr.count("broken.mp4") == 1
    assert "(counted as wrong)" in strict.stderr
    assert "(left out)" in lenient.stderr
    counts = [json.loads(answer.stdout) for answer in (strict, lenient)]
    assert [count["num_clips"] for count in counts] == [6, 5]
    assert counts[0]["num_correct"] == counts[1]["num_correct"]
    assert all("broken.mp4" in count["failures"][0][0] for count in counts)


@pytest.mark.parametrize(("num_workers", "num_chunks", "left"), [(0, 20, "17 frames"), (1, 3, "1 frame")])
def test_damaged_clip_counts_with_a_warning(
    num_workers: int, num_chunks: int, left: str, folder: Path, tmp_path: Path, ppv: Ppv
) -> None:
    whole, cut = tmp_path / "whole.avi", tmp_path / "cut.avi"
    write_video(whole, moving_block(40), codec="mpeg4", options={"g": "10"})
    cut.write_bytes(b"00dc".join(whole.read_bytes().split(b"00dc")[:num_chunks])[:-20])  # it ends within a frame
    (tmp_path / "two.list").write_text(f"{whole} 0\n{cut} 0\n", encoding="utf-8")
    answer = ppv(
        *("eval", "--weights", folder / "w.safetensors", "--data", tmp_path / "two.list", "--workers", num_workers),
        *("--out", tmp_path / "out", "--json"),
    )
    what = f"cut off within a frame; {left} can be decoded"
    assert answer.stderr.splitlines() == [
        f"warning: {cut} is damaged ({what}): counted by what is left of it",
        f"report and tables: {tmp_path / 'out'}",
    ]
    report = json.loads(answer.stdout)
    assert (report["num_clips"], report["failures"]) == (2, [])
    assert report["damaged"] == [[str(cut), what]]
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [line.get("damage") for line in lines] == [None, what]


def test_many_classes_show_the_worst_ten(capsys: pytest.CaptureFixture[str]) -> None:
    from ppvcli.cli import eval as command
    from ppvcli.results import ClassResult, EvalReport

    classes = tuple(
        ClassResult(label=f"c{i}", num_clips=50, num_correct=i, num_predicted=50) for i in reversed(range(40))
    )
    report = EvalReport(model="m", num_clips=2000, num_correct=780, num_correct_top5=900, loss=1.0, classes=classes)
    command._show(report)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines[1:11]] == [f"c{i}" for i in range(10)]
    assert lines[11] == "m: top-1 39.0% (780 of 2000 clips), top-5 45.0%, mean class 39.0%, loss 1.000"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data", "clips", "--protocol", "denze"], "unknown protocol 'denze'; nearest: dense"),
        (["--set", "epochs=1"], "--set changes a setting of --config"),
        (["--config", "mine.yaml", "--list", "val.list"], "--config and --list both say"),
        (["--data", "val.list", "--list", "val.list"], "is a list itself"),
        (["--list", "val.list"], "a list file needs the folder of its clips"),
        ([], "no clips to evaluate on"),
        (["--data", "clips", "--format", "films"], "unknown format 'films'"),
        (["--config", "mine.yaml", "--format", "frames"], "--set data.format=frames"),
        (["--config", "mine.yaml", "--set", "epoch=1"], "--set epoch=1: unknown key; nearest: epochs"),
        (["--data", "clips", "--out", "."], "holds other files than a report"),
    ],
)
def test_wrong_request_is_a_usage_error(
    args: list[str], words: str, folder: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    answer = ppv("eval", "--weights", "w.safetensors", "--workers", "0", *args)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert answer.stdout == ""
    assert not (folder / "eval").exists()


def test_interruption_ends_with_130_and_writes_nothing(
    folder: Path, tmp_path: Path, python_process: Callable[..., subprocess.Popen[str]]
) -> None:
    lines = (folder / "val.list").read_text(encoding="utf-8").replace("clips/", f"{folder}/clips/")
    (tmp_path / "long.list").write_text(lines * 400, encoding="utf-8")
    probe = (
        "import sys; from ppvcli.models import views; real = views.batch_logits\n"
        "def tell(*args, **kwargs):\n"
        "    print('evaluating', file=sys.stderr, flush=True); return real(*args, **kwargs)\n"
        "views.batch_logits = tell\nfrom ppvcli.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    args = ("eval", "--weights", folder / "w.safetensors", "--data", tmp_path / "long.list", "--out", tmp_path / "out")
    process = python_process("-c", probe, *map(str, args))
    assert process.stderr is not None
    for line in process.stderr:
        if line == "evaluating\n":
            break
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - began < 30
    assert "Traceback" not in process.stderr.read()
    assert not (tmp_path / "out").exists()


def test_place_that_cannot_be_written_is_refused_before_a_clip_is_read(
    folder: Path, tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppvcli.engine.evaluate.evaluate_logits", None)  # would be a TypeError
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "new" / "x"
    answer = ppv("eval", "--weights", folder / "w.safetensors", "--data", folder / "val.list", "--out", out)
    assert (answer.exit_code, answer.stdout) == (1, "")
    error, hint = answer.stderr.splitlines()
    assert error == f"error: can't write a report into {out}: Not a directory"
    assert hint.startswith("hint: --out DIR")


@pytest.mark.parametrize(
    ("end", "exit_code"), [(OSError(28, "No space left on device"), 1), (KeyboardInterrupt(), 130), (ValueError(), 1)]
)
def test_figures_are_shown_whatever_happens_while_the_report_is_written(
    end: BaseException, exit_code: int, folder: Path, tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise end

    monkeypatch.setattr("ppvcli.engine.reports.plot_confusion", fail)
    args = ("--weights", folder / "w.safetensors", "--data", folder / "one.list", "--workers", "0")
    answer = ppv("eval", *args, "--out", tmp_path / "out")
    assert answer.exit_code == exit_code
    assert answer.stdout.splitlines()[-1].startswith("tsm_efflite0: top-1 ")
    assert "error: " in answer.stderr
    assert "report and tables" not in answer.stderr
    answer = ppv("eval", *args, "--out", tmp_path / "out", "--json")
    assert json.loads(answer.stdout)["num_clips"] == 1


def test_class_without_clips_has_a_row(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    args = ("--weights", folder / "w.safetensors", "--data", folder / "one.list", "--workers", "0")
    lines = ppv("eval", *args, "--out", tmp_path / "out").stdout.splitlines()
    rows = [line.split("\t") for line in lines[1:4]]
    assert [row[:2] for row in rows] == [["jump", "1"], ["wave one hand", "0"], ["wave two hands", "0"]]
    assert [row[3] for row in rows[1:]] == ["-", "-"]


def test_export_is_named_as_what_it_is(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    (tmp_path / "inference.yml").touch()
    answer = ppv("eval", "--weights", tmp_path, "--data", folder / "one.list", "--out", tmp_path / "out")
    assert answer.exit_code == 1
    error, hint = answer.stderr.splitlines()
    assert error.startswith(f"error: {tmp_path} is an export: it can predict, but can't be evaluated")
    assert hint.startswith(f"hint: ppv predict FILE --weights {tmp_path}, or ")


def test_config_of_another_model_lends_its_clips_to_any_weights(folder: Path, tmp_path: Path, ppv: Ppv) -> None:
    text = (folder / "mine.yaml").read_text(encoding="utf-8").replace("tsm_efflite0", "tsm_k400")
    (tmp_path / "other.yaml").write_text(text, encoding="utf-8")
    report = run(ppv, folder, tmp_path / "out", "--config", tmp_path / "other.yaml")
    assert (report["model"], report["num_clips"]) == ("tsm_efflite0", 5)
