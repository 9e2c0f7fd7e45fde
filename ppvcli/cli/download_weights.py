"""`ppv download-weights`: published weights into the store, what the store holds, and whether it is sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ppvcli.cli import options, output
from ppvcli.cli.download_progress import open_progress
from ppvcli.cli.weights_list import show_list
from ppvcli.errors import DownloadError, NoConnectionError, UsageError, WeightsError

_EXCLUSIONS = {
    "NAME": ("--all", "--list"),
    "--all": ("--list",),
    "--list": ("--verify", "--mirror", "--offline", "--force"),
    "--verify": ("--mirror", "--offline", "--force"),
}
"""Words that can't take effect together."""


def download_weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Models, aliases or ImageNet backbones.",
            show_default=False,
            autocompletion=options.complete_weights,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every published model.", show_default=False)] = False,
    list_: Annotated[
        bool,
        typer.Option("--list", help="Show all models and backbones, and what is in the store.", show_default=False),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.", show_default=False)] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL_OR_FOLDER",
            help="Where to look instead of the published addresses: for their path below it, then for the bare file "
            "name.  [env: PPV_WEIGHTS_MIRROR]",
            show_default=False,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Open no connection; a mirror folder works.", show_default=False)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Download again what is in the store.", show_default=False)
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Download nothing; hash what is stored (all, or NAMEs).", show_default=False),
    ] = False,
) -> None:
    """Download published weights into the local store."""
    _check_usage(names=names or [], all_=all_, list_=list_, verify=verify, mirror=mirror, offline=offline, force=force)
    if list_:
        show_list(as_json=json_)
        return
    answers = []
    selected = _select_names(names or [], all_=all_, verify=verify)
    if not selected:
        from ppvcli.weights.store import weights_dir

        output.show_note(f"no weights are stored in {weights_dir()}")
    no_connection = False
    for name in selected:
        without_download = _without_download(name)
        if without_download is not None:
            answer = _Answer(name=name, text=without_download)
        elif no_connection and (force or needs_download(name)):
            answer = _Answer(name=name, error=DownloadError(f"{name} is not tried after that"))
        else:
            answer = _verify(name) if verify else _fetch(name, mirror=mirror, offline=offline, force=force)
        if answer.error is not None:
            output.show_error(answer.error.message, hint=answer.error.hint)
        elif not json_:
            output.print_line(f"{answer.name}: {answer.text}")
        answers.append(answer)
        no_connection = no_connection or isinstance(answer.error, NoConnectionError)
    if json_:
        output.print_json([answer.to_dict() for answer in answers])
    if any(answer.error is not None for answer in answers):
        raise typer.Exit(1)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What happened to one model."""

    name: str
    text: str = ""
    path: str | None = None
    size_bytes: int | None = None
    error: WeightsError | None = None

    def to_dict(self) -> dict[str, Any]:
        if self.error is not None:
            return {"name": self.name, "error": self.error.message}
        return {"name": self.name, "path": self.path, "size_bytes": self.size_bytes}


def _check_usage(
    *, names: Sequence[str], all_: bool, list_: bool, verify: bool, mirror: str | None, offline: bool, force: bool
) -> None:
    settings = {"NAME": names, "--all": all_, "--list": list_, "--verify": verify}
    settings |= {"--mirror": mirror, "--offline": offline, "--force": force}
    for word, others in _EXCLUSIONS.items():
        clash = [other for other in others if settings[other]]
        if settings[word] and clash:
            raise UsageError(f"{word} and {clash[0]} exclude each other", hint=f"leave one of them out, such as {word}")
    if not (names or all_ or list_ or verify):
        raise UsageError("no model named", hint="ppv download-weights pptsmv2, or --all, or --list to see them")


def _select_names(names: Sequence[str], *, all_: bool, verify: bool) -> list[str]:
    """Names as the store has them, each once. Raises: UnknownNameError."""
    from ppvcli.models.backbones import BACKBONES, store_name
    from ppvcli.models.zoo import ZOO
    from ppvcli.weights import store

    if names:
        return list(dict.fromkeys(store_name(name) for name in names))
    if verify:
        return [name for name in store.list_names() if name in ZOO or name in BACKBONES]
    assert all_
    return [row.name for row in ZOO.values() if row.url is not None]


def _without_download(name: str) -> str | None:
    """Where weights are that need no download; None for all others."""
    from ppvcli.models.backbones import BACKBONES
    from ppvcli.models.zoo import ZOO

    if name in ZOO and ZOO[name].bundled:
        return "part of the package, nothing to download"
    if name in BACKBONES and BACKBONES[name].url is None:
        return f"nothing to download: {BACKBONES[name].note}"
    return None


def _fetch(name: str, *, mirror: str | None, offline: bool, force: bool) -> _Answer:
    from ppvcli import api
    from ppvcli.weights import store

    try:
        with open_progress() as progress:
            (record,) = api.download_weights([name], mirror=mirror, offline=offline, force=force, progress=progress)
    except WeightsError as error:
        return _Answer(name=name, error=error)
    path = str(store.weights_path(name))
    return _Answer(
        name=name, text=f"{path} ({output.format_size(record.size_bytes)})", path=path, size_bytes=record.size_bytes
    )


def fetch_weights(name: str) -> None:
    """Fetches the published weights of a model or backbone, showing progress, for commands that need them.

    What `needs_download` denies is left alone. Raises: UnknownNameError, OfflineError, DownloadError.
    """
    if not needs_download(name):
        return
    from ppvcli import api
    from ppvcli.models.backbones import store_name

    with open_progress() as progress:
        api.download_weights([store_name(name)], progress=progress)


def needs_download(name: str) -> bool:
    """Whether weights are published and not in the store yet. Raises: UnknownNameError."""
    from ppvcli.models.backbones import published_url, store_name
    from ppvcli.weights import store

    name = store_name(name)
    return published_url(name) is not None and store.state(name) == "absent"


def _verify(name: str) -> _Answer:
    from ppvcli.weights import store

    try:
        record = store.verify(name)
    except WeightsError as error:
        return _Answer(name=name, error=error)
    path = str(store.weights_path(name))
    text = f"ok, as downloaded on {record.downloaded_at}"
    return _Answer(name=name, text=text, path=path, size_bytes=record.size_bytes)
