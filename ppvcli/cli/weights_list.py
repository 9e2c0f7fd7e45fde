"""`ppv download-weights --list`: every model and backbone, and what the store has of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ppvcli.cli import output

if TYPE_CHECKING:
    from ppvcli.models.backbones import Backbone
    from ppvcli.models.zoo import ModelRow


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """The place of weights in the store."""

    weights: str
    """`stored`, `damaged`, `not stored`, `in the package`, `from pip` or `none published`."""
    size_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class _BackboneRow(_Stored):
    """An ImageNet backbone, which training starts from."""

    backbone: Backbone

    def cells(self) -> tuple[str, ...]:
        use = f"ImageNet, for {' and '.join(self.backbone.architectures)}"
        return (
            self.backbone.name,
            use,
            "",
            self.weights,
            "" if self.size_bytes is None else output.format_size(self.size_bytes),
        )

    def to_dict(self) -> dict[str, Any]:
        backbone = self.backbone
        return {
            "name": backbone.name,
            "backbone_of": list(backbone.architectures),
            "depth": backbone.depth,
            "url": backbone.url,
            "weights": self.weights,
            "size_bytes": self.size_bytes,
            "note": backbone.note,
        }


@dataclass(frozen=True, kw_only=True)
class _ModelRow(_Stored):
    """A model."""

    row: ModelRow
    aliases: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        name = f"{self.row.name} ({', '.join(self.aliases)})" if self.aliases else self.row.name
        top1 = "" if self.row.claimed_top1 is None else f"{self.row.claimed_top1:.2f} {self.row.claimed_on}"
        size = "" if self.size_bytes is None else output.format_size(self.size_bytes)
        return (name, self.row.protocol, top1, self.weights, size)

    def to_dict(self) -> dict[str, Any]:
        row = self.row
        return {
            "name": row.name,
            "aliases": list(self.aliases),
            "num_segments": row.preprocess.sampling.num_segments,
            "num_views": row.preprocess.num_views,
            "protocol": row.protocol,
            "claimed_top1": row.claimed_top1,
            "claimed_on": row.claimed_on,
            "labels": row.labels,
            "url": row.url,
            "weights": self.weights,
            "size_bytes": self.size_bytes,
            "note": row.note,
        }


_HEADINGS = ("model", "one video is", "top-1 %", "weights", "size")


def show_list(*, as_json: bool) -> None:
    """Prints the table, or JSON."""
    from ppvcli.models.backbones import BACKBONES
    from ppvcli.models.zoo import ALIASES, ZOO

    rows: list[_ModelRow | _BackboneRow] = []
    for row in ZOO.values():
        weights = (
            "in the package" if row.bundled else _place(row.name, absent="not stored" if row.url else "none published")
        )
        aliases = tuple(alias for alias, name in ALIASES.items() if name == row.name)
        rows.append(_ModelRow(row=row, aliases=aliases, weights=weights, size_bytes=_stored_bytes(row.name)))
    for name, backbone in BACKBONES.items():
        weights = _place(name, absent="not stored") if backbone.url else "from pip"
        rows.append(_BackboneRow(backbone=backbone, weights=weights, size_bytes=_stored_bytes(name)))
    if as_json:
        output.print_json([row.to_dict() for row in rows])
        return
    output.print_table(_HEADINGS, [row.cells() for row in rows])


def _place(name: str, *, absent: str) -> str:
    from ppvcli.weights import store

    state = store.state(name)
    return absent if state == "absent" else state


def _stored_bytes(name: str) -> int | None:
    from ppvcli.weights import store

    return None if store.state(name) == "absent" else store.weights_path(name).stat().st_size
