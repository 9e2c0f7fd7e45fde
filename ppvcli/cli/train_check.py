"""`ppv train --check-data`: what is wrong with the clips of a config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ppvcli.cli import output
from ppvcli.errors import InterruptedRunError

if TYPE_CHECKING:
    from ppvcli.configs.schema import TrainConfig
    from ppvcli.results import DataCheck

MAX_LINES = 40
"""Problems that are shown; `--out FILE` gets all."""


def check_clips(settings: TrainConfig, *, out: Path | None, threads: int | None, as_json: bool) -> None:
    """Decodes every clip that the config names, with a process for each of the threads, and prints what is wrong.

    Exit code 1 for what spoils a training: a broken clip, one on both sides or in two classes, a class without a clip
    to train on.
    """
    from ppvcli.datasets.catalog import describe_leftovers, open_split
    from ppvcli.datasets.check import check_data, check_report_path, write_check
    from ppvcli.machine import resolve_threads
    from ppvcli.video.limits import DecodeLimits

    if out is not None:
        check_report_path(out)
    split = open_split(settings.data, seed=settings.seed)
    limits = DecodeLimits(timeout_s=settings.data.decode_timeout_s, max_pixels=settings.data.max_pixels)
    try:
        with output.open_bar("checking clips") as advance:
            check = check_data(split, num_workers=resolve_threads(threads), limits=limits, on_clip=advance)
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted", hint="the same command starts the check anew") from None
    if as_json:
        output.print_json(check.to_dict())
    else:
        _show_problems(check, out)
    if out is not None:
        write_check(check, out)
    if not as_json:
        listed = f", listed in {out}" if out is not None else ""
        output.print_line(
            f"{len(split.labels)} classes, {check.num_train} clips to train on, {check.num_val} held out: "
            f"{len(check.broken)} broken, {len(check.problems)} problems in all{listed}"
        )
    for remark in describe_leftovers(settings.data):
        output.show_warning(remark)
    if check.broken or check.in_two_classes or check.on_both_sides or check.classes_without_train:
        raise typer.Exit(1)


def _show_problems(check: DataCheck, out: Path | None) -> None:
    for kind, what, detail in check.problems[:MAX_LINES]:
        text = output.with_path(what, detail) if kind == "broken" else f"{what}: {detail}"
        output.print_line(output.printable(f"{kind}: {text}"))
    more = len(check.problems) - MAX_LINES
    if more > 0:
        output.print_line(f"... and {more} more")
    if more > 0 and out is None:
        output.show_hint("--out FILE writes all of them")
