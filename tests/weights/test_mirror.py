"""Names of published files on a mirror."""

from __future__ import annotations

import pytest

from ppvcli.weights.mirror import is_http, mirror_urls


@pytest.mark.parametrize(
    ("url", "base", "expected"),
    [
        ("https://a/x/y.pdparams", "https://m/z", ["https://m/z/x/y.pdparams", "https://m/z/y.pdparams"]),
        ("https://a/x/y.pdparams", "http://m/", ["http://m/x/y.pdparams", "http://m/y.pdparams"]),
        ("https://a/y.pdparams?v=1", "https://m", ["https://m/y.pdparams"]),
    ],
)
def test_mirror_urls_are_path_then_name(url: str, base: str, expected: list[str]) -> None:
    assert mirror_urls(url, base=base) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://a/b", True),
        ("HTTP://a", True),
        ("/mnt/weights", False),
        ("C:\\weights", False),
        ("ftp://a", False),
        ("http://[x", False),
    ],
)
def test_is_http_knows_addresses_from_folders(address: str, expected: bool) -> None:
    assert is_http(address) is expected
