"""`ppv predict`: what people do in video files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppvcli.cli import output
from ppvcli.cli.bars import BarRow, print_bars
from ppvcli.cli.download_weights import fetch_weights, needs_download
from ppvcli.cli.options import (
    CpuOption,
    DecodeTimeoutOption,
    DeviceOption,
    GpuOption,
    MaxPixelsOption,
    PrecisionOption,
    RuntimeOption,
    TensorrtOption,
    ThreadsOption,
    choose_device,
    choose_limits,
    complete_model,
)
from ppvcli.cli.unfinished import tell_unfinished
from ppvcli.errors import UsageError, VideoError, counted

if TYPE_CHECKING:
    from ppvcli.results import Prediction

DEMO_MODEL = "tsm_efflite0_weizmann"
BAR_WIDTH = 30


def predict(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="Video files.", show_default=False)] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="A model name.  [default: what the weights are of, else pptsmv2]",
            autocompletion=complete_model,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|RUN_DIR|EXPORT", help="Your own weights, or what ppv train, ppv export or PaddleX has made."
        ),
    ] = None,
    cpu: CpuOption = False,
    gpu: GpuOption = False,
    device: DeviceOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    tensorrt: TensorrtOption = False,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, metavar="K", help="Classes to show for each file.")] = 5,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="Class names, one a line, in place of the model's own.")
    ] = None,
    decode_timeout: DecodeTimeoutOption = None,
    max_pixels: MaxPixelsOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON array, an object for each file.")] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Recognise the bundled clip with the bundled model; needs no network.")
    ] = False,
) -> None:
    """Name what people do in video files.

    A table on a terminal; lines of path, rank, score and label, with tabs between, where the output goes elsewhere.
    """
    files, model = _choose_input(files or [], model=model, weights=weights, labels=labels, demo=demo)
    place = choose_device(cpu=cpu, gpu=gpu, device=device)

    from ppvcli.datasets.annotations import read_labels
    from ppvcli.deploy import DEFAULT_MODEL

    if labels is not None:
        read_labels(Path(labels))  # before something is downloaded for nothing
    limits = choose_limits(decode_timeout=decode_timeout, max_pixels=max_pixels)
    show = _show_json if json else _show_each
    if weights is None:
        _check_choice(runtime, precision, place=place, tensorrt=tensorrt)
        name = DEFAULT_MODEL if model is None else model
        failures = _find_failures(files, name) if needs_download(name) else []
        if failures and len(failures) == len(files):  # nothing to download weights for
            show(iter(failures), len(files))
            raise typer.Exit(1)
        fetch_weights(name)

    from ppvcli.deploy.predictor import Predictor

    predictor = Predictor(
        model,
        weights=weights,
        device=place,
        runtime=runtime,
        labels=labels,
        threads=threads,
        precision=precision,
        tensorrt=tensorrt,
        on_compile=_tell_compiling if output.is_terminal(sys.stderr) else None,
    )
    tell_unfinished(weights)
    if predictor.program.unkept is not None:
        output.show_warning(f"{predictor.program.unkept}; it was compiled for this once")
        output.show_hint("PPV_HOME=FOLDER, a folder that may be written, keeps it")
    predictions = predictor.predict(files, top_k=top_k, limits=limits)
    if show(predictions, len(files)):
        raise typer.Exit(1)


def _find_failures(files: list[str], model: str) -> list[Prediction]:
    """Of files that are not there, or are folders or empty."""
    from ppvcli.results import Prediction
    from ppvcli.video.container import check_file

    failures = []
    for path in files:
        try:
            check_file(path)
        except VideoError as error:
            failures.append(Prediction(path=path, model=model, error=error.message, hint=error.hint))
    return failures


def _check_choice(runtime: str, precision: str | None, *, place: str, tensorrt: bool) -> None:
    """Raises what `Predictor` would raise, before something is downloaded for nothing."""
    from ppvcli.deploy.runtimes import check_choice
    from ppvcli.models.device import find_device

    check_choice(runtime, precision or "fp32", device=find_device(place), tensorrt=tensorrt, is_export=False)


def _choose_input(
    files: list[str], *, model: str | None, weights: str | None, labels: str | None, demo: bool
) -> tuple[list[str], str | None]:
    if not demo:
        if not files:
            raise UsageError("no video given", hint="ppv predict clip.mp4, or ppv predict --demo")
        return files, model
    settings = {"FILE": files, "--model": model, "--weights": weights, "--labels": labels}
    given = [name for name, value in settings.items() if value]
    if given:
        raise UsageError(f"--demo and {given[0]} exclude each other", hint="ppv predict --demo")
    from ppvcli.models.facts import DEMO_CLIP

    return [str(DEMO_CLIP)], DEMO_MODEL


def _tell_compiling(model: str) -> None:
    output.show_note(f"compiling {model} for this machine, once; it takes some seconds")


def _show_json(predictions: Iterator[Prediction], num_files: int) -> int:
    """As `_show_each`, as one JSON array."""
    # on a terminal a bar would wipe out the unfinished line that it begins on
    answers = predictions if output.is_terminal(sys.stdout) else _with_progress(predictions, num_files)
    num_failed = 0
    with output.open_json_array() as add:
        for prediction in answers:
            add(prediction.to_dict())
            _report_problem(prediction)
            num_failed += prediction.error is not None
    return num_failed


def _show_each(predictions: Iterator[Prediction], num_files: int) -> int:
    """Shows each answer as soon as it is known and returns how many files had none."""
    as_table = output.is_terminal(sys.stdout)
    num_failed = 0
    for prediction in _with_progress(predictions, num_files):
        _report_problem(prediction)
        if prediction.error is not None:
            num_failed += 1
        elif as_table:
            _show_table(prediction)
        else:
            for line in _lines(prediction):
                output.print_line(line)
    return num_failed


def _report_problem(prediction: Prediction) -> None:
    if prediction.error is not None:
        output.show_error(prediction.error, hint=prediction.hint)
    elif prediction.damage is not None and prediction.num_frames is not None:
        frames = counted(prediction.num_frames, "frame")
        output.show_warning(
            f"{prediction.path} is damaged ({prediction.damage}): the answer is for the {frames} that can be decoded"
        )


def _lines(prediction: Prediction) -> list[str]:
    """Path, rank, score and label of each class, separated by tabs."""
    return [
        "\t".join((output.printable(prediction.path), str(rank), f"{best.score:.4f}", output.printable(best.label)))
        for rank, best in enumerate(prediction.top, start=1)
    ]


def _show_table(prediction: Prediction) -> None:
    """Labels with bars, the best one first, between the clip's length and the time of each stage."""
    from rich.text import Text

    console = output.stdout_console()
    length = f"{prediction.duration_s:.1f} s, {prediction.num_frames} frames"
    title = Text.assemble((output.printable(prediction.path), "bold"), (f"  {length}", "dim"))
    console.print(title, soft_wrap=True)  # a line break in a path would be copied with it
    rows = [
        BarRow(f"  {best.label}", best.score, (f"{best.score:6.1%}",), "bold" if rank == 0 else "")
        for rank, best in enumerate(prediction.top)
    ]
    print_bars(rows, ("", ""), bar_width=BAR_WIDTH)
    stages = ", ".join(f"{stage} {time_ms:.0f} ms" for stage, time_ms in prediction.timings_ms.items())
    console.print(Text(f"  {prediction.model}: {stages}\n", style="dim"), soft_wrap=True)


def _with_progress(predictions: Iterator[Prediction], num_files: int) -> Iterator[Prediction]:
    """The predictions as they come; meanwhile a bar on stderr, where that is a terminal and files are many."""
    if num_files == 1 or not output.is_terminal(sys.stderr):
        yield from predictions
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    # redirect_stdout would send our data to stderr, where the bar is
    progress = Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        console=output.stderr_console(),
        transient=True,
        redirect_stdout=False,
    )
    task = progress.add_task("", total=num_files)
    try:
        progress.start()
        for prediction in predictions:
            progress.stop()  # takes the bar away, so that what the caller shows has its own lines
            yield prediction
            progress.advance(task)
            progress.start()
    finally:
        progress.stop()
