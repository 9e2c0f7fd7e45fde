"""`ppv train --list-configs`: the shipped configs, with what tells them apart."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ppvcli.cli import output

if TYPE_CHECKING:
    from ppvcli.configs.schema import TrainConfig

_HEADINGS = ("config", "model", "data", "starts from", "epochs")


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A shipped config."""

    name: str
    model: str
    data: str
    starts_from: str | None
    teacher: str | None
    epochs: int

    def cells(self) -> tuple[str, ...]:
        start = "its published weights" if self.starts_from == self.model else self.starts_from or "nothing"
        taught = "" if self.teacher is None else f", taught by {self.teacher}"
        return (self.name, self.model, self.data, start + taught, str(self.epochs))


def show_configs(*, as_json: bool) -> None:
    """Prints the table, or JSON."""
    from ppvcli.configs.load import list_configs, load_config

    rows = [_row(name, load_config(name)) for name in list_configs()]
    if as_json:
        output.print_json([asdict(row) for row in rows])
        return
    output.print_table(_HEADINGS, [row.cells() for row in rows])
    if output.is_terminal(sys.stderr):
        output.show_hint("ppv train --config CONFIG --print-config shows one in full")


def _row(name: str, config: TrainConfig) -> _Row:
    from ppvcli.models.zoo import get_model_row

    data, teacher = config.data, None if config.teacher is None else config.teacher.weights
    partner = get_model_row(config.model.name).network.teacher
    if partner is not None:
        teacher = partner.architecture
    return _Row(
        name=name,
        model=config.model.name,
        data=f"{data.format}, {'lists' if data.train_list else 'folders'}",
        starts_from=config.model.pretrained,
        teacher=teacher,
        epochs=config.epochs,
    )
