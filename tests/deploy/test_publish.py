"""What an export may replace, and what a link to one becomes."""

from __future__ import annotations

from pathlib import Path

from ppvcli.deploy.publish import publishing


def test_export_through_a_link_goes_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "inference.yml").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("real")
    with publishing(tmp_path / "link", force=True) as folder:
        (folder / "inference.yml").write_text("new", encoding="utf-8")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "inference.yml").read_text(encoding="utf-8") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
