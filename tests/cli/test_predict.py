"""`ppv predict` on rendered clips, with a real network of three classes; and the demo with the bundled model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ppvcli.cli import output
from ppvcli.deploy.predictor import Predictor
from ppvcli.errors import DatasetError, WeightsError
from ppvcli.results import Prediction
from ppvcli.video.render import write_video
from tests.small_model import LABELS, MODEL, moving_block, write_weights

REPO = Path(__file__).resolve().parents[2]
DEMO_ACTION = "wave2"

Ppv = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, one of them with a space in its name, a broken one, and a run folder."""
    folder = tmp_path_factory.mktemp("predict")
    write_video(folder / "block.mp4", moving_block(20))
    write_video(folder / "slow block.mp4", moving_block(50, step=1))
    (folder / "broken.mp4").write_bytes((folder / "block.mp4").read_bytes()[:100])
    write_weights(folder / "run" / "best" / "weights.safetensors")
    return folder


def test_json_is_one_array_with_an_object_for_each_file_in_order(ppv: Ppv, folder: Path) -> None:
    paths = [str(folder / name) for name in ("slow block.mp4", "broken.mp4", "block.mp4")]
    answer = ppv("predict", *paths, "--weights", folder / "run", "--json", "--cpu")
    assert answer.exit_code == 1
    objects = json.loads(answer.stdout)
    assert [one["path"] for one in objects] == paths
    assert set(objects[1]) == {"path", "error"}
    assert objects[1]["error"] in answer.stderr
    for one, num_frames in ((objects[0], 50), (objects[2], 20)):
        assert set(one) == {"path", "model", "top", "num_frames", "duration_s", "timings_ms"}
        assert (one["model"], one["num_frames"], one["duration_s"]) == (MODEL, num_frames, num_frames / 25)
        assert [set(best) for best in one["top"]] == [{"label", "index", "score"}] * len(LABELS)
        assert sorted(best["index"] for best in one["top"]) == [0, 1, 2]
        assert set(one["timings_ms"]) == {"decode", "transform", "network"}


def test_text_is_one_line_a_class_with_tabs_between(ppv: Ppv, folder: Path) -> None:
    answer = ppv("predict", folder / "slow block.mp4", folder / "block.mp4", "--weights", folder / "run", "-k", 2)
    assert (answer.exit_code, answer.stderr) == (0, "")
    rows = [line.split("\t") for line in answer.stdout.splitlines()]
    names = ("slow block.mp4", "block.mp4")
    assert [(path, rank) for path, rank, _, _ in rows] == [(str(folder / n), r) for n in names for r in ("1", "2")]
    assert all(0 <= float(score) <= 1 and label in LABELS for _, _, score, label in rows)


def test_table_on_a_terminal_shows_labels_bars_length_and_times(
    ppv: Ppv, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    answer = ppv("predict", folder / "block.mp4", "--weights", folder / "run")
    assert answer.exit_code == 0
    for part in (*LABELS, "━━━", "%", "0.8 s, 20 frames", "decode ", "transform ", "network ", " ms", MODEL):
        assert part in answer.stdout
    assert "\t" not in answer.stdout


def test_broken_file_among_good_ones_is_told_on_stderr_and_the_others_are_answered(ppv: Ppv, folder: Path) -> None:
    names = ("broken.mp4", "block.mp4", "missing.mp4", "slow block.mp4")
    answer = ppv("predict", *(folder / name for name in names), "--weights", folder / "run", "-k", 1)
    assert answer.exit_code == 1
    assert [line.split("\t")[0] for line in answer.stdout.splitlines()] == [
        str(folder / names[1]),
        str(folder / names[3]),
    ]
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert [name in error for name, error in zip((names[0], names[2]), errors, strict=True)] == [True, True]


def test_top_k_larger_than_the_number_of_classes_shows_them_all(ppv: Ppv, folder: Path) -> None:
    answer = ppv("predict", folder / "block.mp4", "--weights", folder / "run", "--top-k", 99)
    assert len(answer.stdout.splitlines()) == len(LABELS)


def test_labels_file_names_the_classes(ppv: Ppv, folder: Path) -> None:
    (folder / "labels.txt").write_text("left\nright\nup\n")
    answer = ppv("predict", folder / "block.mp4", "--weights", folder / "run", "--labels", folder / "labels.txt")
    assert sorted(line.split("\t")[3] for line in answer.stdout.splitlines()) == ["left", "right", "up"]


def test_label_that_would_steer_the_terminal_is_shown_not_obeyed(ppv: Ppv, folder: Path) -> None:
    (folder / "steering.txt").write_text("\x1b[31mred\na\tb\nc\n")
    answer = ppv("predict", folder / "block.mp4", "--weights", folder / "run", "--labels", folder / "steering.txt")
    assert "\x1b" not in answer.stdout
    assert sorted(line.split("\t")[3] for line in answer.stdout.splitlines()) == ["\\x1b[31mred", "a\\tb", "c"]


@pytest.mark.parametrize(
    ("args", "exit_code", "error"),
    [
        ([], 2, "no video given"),
        (["x.mp4", "--demo"], 2, "--demo and FILE exclude each other"),
        (["--demo", "--model", "tsm"], 2, "--demo and --model exclude each other"),
        (["--demo", "--weights", "w"], 2, "--demo and --weights exclude each other"),
        (["--demo", "--labels", "l"], 2, "--demo and --labels exclude each other"),
        (["x.mp4", "--cpu", "--gpu"], 2, "--cpu and --gpu exclude each other"),
        (["x.mp4", "--gpu", "--device", "cpu"], 2, "--gpu and --device exclude each other"),
        (["x.mp4", "--device", "tpu"], 2, "unknown device 'tpu'"),
        (["x.mp4", "--runtime", "tensorflow"], 2, "unknown runtime 'tensorflow'"),
        (["x.mp4", "--precision", "fp8"], 2, "unknown precision 'fp8'"),
        (["x.mp4", "--tensorrt"], 2, "TensorRT runs on GPUs through Paddle, not with the CPU"),
        (["x.mp4", "--threads", "0"], 2, "invalid value for '--threads'"),
        (["x.mp4", "--model", "tsmm"], 2, "unknown model 'tsmm'; nearest: tsm"),
        (["x.mp4", "--top-k", "0"], 2, "invalid value for '--top-k'"),
        (["x.mp4", "--weights", "nowhere"], 1, "no weight file at nowhere"),
        (["x.mp4", "--model", "pptsmv2_k400_16f_lta"], 1, "pptsmv2_k400_16f_lta has no published weights"),
    ],
)
def test_request_that_cannot_be_carried_out_is_one_error_with_a_hint(
    args: list[str], exit_code: int, error: str, ppv: Ppv
) -> None:
    answer = ppv("predict", *args)
    assert (answer.exit_code, answer.stdout) == (exit_code, "")
    first, second = answer.stderr.splitlines()
    assert first.startswith(f"error: {error}")
    assert second.startswith("hint: ")


def test_folder_in_place_of_a_file_is_refused_with_a_pattern_for_the_shell(ppv: Ppv, tmp_path: Path) -> None:
    (tmp_path / "dir mixed").mkdir()
    answer = ppv("predict", tmp_path / "dir mixed", "--model", "tsm_efflite0_weizmann")
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[1] == f"hint: name the files in it: '{tmp_path / 'dir mixed'}'/*"


def test_folder_of_frames_is_refused_with_the_command_that_takes_it(ppv: Ppv, tmp_path: Path) -> None:
    (tmp_path / "img_00001.jpg").touch()
    answer = ppv("predict", tmp_path, "--model", "tsm_efflite0_weizmann")
    assert answer.exit_code == 1
    first, second = answer.stderr.splitlines()
    assert first == f"error: {tmp_path} is a folder of frames, not a video file"
    assert second.endswith("ppv eval --format frames --data DIR")


def test_weights_that_cannot_be_fetched_name_everything_that_helps(
    ppv: Ppv, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPV_HOME", str(tmp_path))
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", "http://127.0.0.1:9")  # the discard port: nobody answers
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    answer = ppv("predict", folder / "block.mp4")
    assert (answer.exit_code, answer.stdout) == (1, "")
    for part in (
        "pptsmv2_k400_16f_dml_student",
        "http://127.0.0.1:9",
        str(tmp_path),
        "--demo",
        "tsm_efflite0_weizmann",
    ):
        assert part in answer.stderr


def test_demo_names_the_action_of_the_bundled_clip_without_network(
    ppv: Ppv, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", None)  # any connection would be a TypeError
    answer = ppv("predict", "--demo", "--json")
    assert (answer.exit_code, answer.stderr) == (0, "")
    (one,) = json.loads(answer.stdout)
    assert (one["model"], one["top"][0]["label"]) == ("tsm_efflite0_weizmann", DEMO_ACTION)
    assert [path.name for path in own_home.iterdir()] == ["compiled"], "nothing was downloaded"


FORBIDDEN = ("paddle", "pydantic", "rich", "requests", "yaml", "decord")


def test_later_use_with_json_imports_neither_paddle_nor_pydantic_nor_rich(
    folder: Path, python_process: Callable[..., subprocess.Popen[str]], own_home: Path
) -> None:
    args = ["predict", str(folder / "block.mp4"), str(folder / "broken.mp4"), "--weights", str(folder / "run")]
    args += ["--json", "--threads", "1"]
    code = f"""
import sys
from ppvcli.cli.app import main
exit_code = main({args!r})
print(sorted(set({FORBIDDEN!r}) & set(sys.modules)), exit_code, file=sys.stderr)
"""
    first, later = (python_process("-c", code, PPV_HOME=str(own_home)).communicate(timeout=120) for _ in range(2))
    assert later[1].splitlines()[-1] == "[] 1"
    answers = [json.loads(stdout) for stdout, _ in (first, later)]
    assert answers[0][0]["top"] == answers[1][0]["top"]
    assert answers[1][1]["error"]


def test_first_use_on_a_terminal_says_that_it_compiles(
    ppv: Ppv, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> None:
        raise DatasetError("far enough")

    monkeypatch.setenv("PPV_HOME", str(tmp_path))
    monkeypatch.setattr("ppvcli.deploy.compile._build", stop)
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    answer = ppv("predict", folder / "block.mp4", "--weights", folder / "run", "--json")
    assert answer.stderr.splitlines()[0].startswith(f"compiling {MODEL} for this machine, once")
    assert "far enough" in answer.stderr


def test_nine_of_ten_actions_of_an_unseen_person_are_named(ppv: Ppv, shared_dir: Path) -> None:
    clips = sorted((shared_dir / "data" / "weizmann").glob("*/lyova_*.avi"))
    assert len(clips) == 10
    answer = ppv("predict", *clips, "--model", "tsm_efflite0_weizmann", "--top-k", 1)
    assert (answer.exit_code, answer.stderr) == (0, "")
    rows = [line.split("\t") for line in answer.stdout.splitlines()]
    assert sum(Path(path).parent.name == label for path, _, _, label in rows) >= 9


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal of POSIX")
@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_takes_the_colour_from_a_real_terminal(no_color: str, coloured: bool, folder: Path) -> None:
    import pty

    master, slave = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "ppvcli", "predict", folder / "block.mp4", "--weights", folder / "run"],
            cwd=REPO,
            env={**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color},
            stdout=slave,
            stderr=subprocess.PIPE,
            check=True,
            timeout=120,
        )
        shown = os.read(master, 1 << 16).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert "━━━" in shown
    assert ("\x1b[36m" in shown) == coloured


def test_files_that_are_not_there_are_told_before_weights_are_fetched(
    ppv: Ppv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppvcli.cli.predict.fetch_weights", lambda name: pytest.fail("fetched for nothing"))
    missing = tmp_path / "missing.mp4"
    answer = ppv("predict", tmp_path, missing, "--model", "pptsmv2", "--cpu")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert f"error: {tmp_path} is a directory, not a video file\n" in answer.stderr
    assert f"error: no video at {missing}: nothing is there\n" in answer.stderr
    answer = ppv("predict", missing, "--model", "pptsmv2", "--cpu", "--json")
    assert answer.exit_code == 1
    assert [one["path"] for one in json.loads(answer.stdout)] == [str(missing)]


def test_labels_that_are_not_there_are_told_before_weights_are_fetched(
    ppv: Ppv, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppvcli.cli.predict.fetch_weights", lambda name: pytest.fail("fetched for nothing"))
    answer = ppv("predict", folder / "block.mp4", "--labels", tmp_path / "nowhere.txt", "--cpu")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"error: can't read {tmp_path / 'nowhere.txt'}: No such file or directory\n")


@pytest.fixture
def cut_avi(folder: Path) -> Path:
    """A file that ends within a frame."""
    whole = folder / "whole.avi"
    write_video(whole, moving_block(40), codec="mpeg4", options={"g": "10"})
    chunks = whole.read_bytes().split(b"00dc")
    (folder / "cut.avi").write_bytes(b"00dc".join(chunks[:20])[:-20])
    (folder / "one.avi").write_bytes(b"00dc".join(chunks[:3])[:-20])
    return folder / "cut.avi"


def test_damaged_file_is_answered_with_a_warning_and_a_mark(ppv: Ppv, folder: Path, cut_avi: Path) -> None:
    answer = ppv("predict", cut_avi, folder / "whole.avi", "--weights", folder / "run", "--json")
    assert answer.exit_code == 0
    cut, whole = json.loads(answer.stdout)
    assert (cut["damage"], "damage" in whole) == ("cut off within a frame", False)
    assert cut["num_frames"] < whole["num_frames"] == 40
    assert answer.stderr == (
        f"warning: {cut_avi} is damaged (cut off within a frame): the answer is for the {cut['num_frames']} frames "
        "that can be decoded\n"
    )
    assert ppv("predict", cut_avi, "--weights", folder / "run").stderr == answer.stderr
    told = ppv("predict", folder / "one.avi", "--weights", folder / "run").stderr
    assert told.endswith(": the answer is for the 1 frame that can be decoded\n")


@pytest.mark.parametrize("end", [KeyboardInterrupt(), WeightsError("scores that are no numbers"), None])
def test_json_has_every_answer_so_far_whatever_ends_it(
    end: BaseException | None, ppv: Ppv, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Predictor.predict

    def predict(self: Predictor, files: list[str], **settings: Any) -> Iterator[Prediction]:
        yield from real(self, files[:2], **settings)
        if end is not None:
            raise end

    monkeypatch.setattr(Predictor, "predict", predict)
    names = ["block.mp4", "broken.mp4", "slow block.mp4"]
    answer = ppv("predict", *(folder / name for name in names), "--weights", folder / "run", "--json")
    assert [one["path"] for one in json.loads(answer.stdout)] == [str(folder / name) for name in names[:2]]
    assert answer.exit_code == (130 if isinstance(end, KeyboardInterrupt) else 1)


def test_json_answer_is_there_before_the_next_file_is_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ppvcli.cli.predict import _show_json

    def answers() -> Iterator[Prediction]:
        yield Prediction(path="a.mp4", model="m")
        shown.append(capsys.readouterr().out)
        yield Prediction(path="b.mp4", model="m")

    shown: list[str] = []
    _show_json(answers(), 2)
    assert '"a.mp4"' in shown[0]
    items: list[dict[str, Any]] = [
        {"path": path, "model": "m", "top": [], "num_frames": None, "duration_s": None, "timings_ms": {}}
        for path in ("a.mp4", "b.mp4")
    ]
    assert shown[0] + capsys.readouterr().out == json.dumps(items, indent=2) + "\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_reader_that_has_enough_ends_it_without_a_word(
    folder: Path, python_process: Callable[..., subprocess.Popen[str]], own_home: Path
) -> None:
    args = [str(folder / "block.mp4")] * 4 + ["--weights", str(folder / "run"), "--threads", "1"]
    process = python_process("-m", "ppvcli", "predict", *args, PPV_HOME=str(own_home))
    assert process.stdout is not None
    assert process.stdout.readline().startswith(str(folder / "block.mp4"))
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait(timeout=120)) == ("", 0)


def test_run_that_is_not_finished_is_told_with_its_epoch(ppv: Ppv, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_weights(run / "best" / "weights.safetensors")
    write_weights(run / "last" / "checkpoint.safetensors")
    (run / "config.yaml").write_text("schedule:\n  epochs: 2\nepochs: 15\n")
    lines = [{"kind": "step", "epoch": 1}]
    results = [(0.25, 1.0), (0.5, 2.0), (0.5, None), (0.5, 2.0)]
    lines += [{"kind": "epoch", "epoch": i, "val_top1": t, "val_loss": x} for i, (t, x) in enumerate(results, start=1)]
    log = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "log.jsonl").write_text(log)
    # the small weights are the folder's, so that nothing is compiled
    for weights, epoch in ((run, 2), (run / "best", 2), (run / "last", 4)):
        answer = ppv("predict", folder / "block.mp4", "--weights", weights)
        assert answer.stderr == f"warning: {run} is not finished: weights of epoch {epoch} of 15\n"
    (run / "config.yaml").write_text("epochs: 4\n")
    assert ppv("predict", folder / "block.mp4", "--weights", run).stderr == ""
    (run / "log.jsonl").write_text("{}\n")
    assert ppv("predict", folder / "block.mp4", "--weights", run).stderr == ""


def test_cache_that_cannot_be_written_means_compiling_each_time_with_a_warning(
    ppv: Ppv, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "file" / "home"))
    answer = ppv("predict", folder / "block.mp4", "--weights", folder / "run")
    assert (answer.exit_code, len(answer.stdout.splitlines())) == (0, 3)
    warning, hint = answer.stderr.splitlines()
    assert warning.startswith(f"warning: can't write the compiled program to {tmp_path}/file/home/compiled/")
    assert warning.endswith(": Not a directory; it was compiled for this once")
    assert hint == "hint: PPV_HOME=FOLDER, a folder that may be written, keeps it"
