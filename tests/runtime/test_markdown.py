from __future__ import annotations

from mixed_r1_ray.runtime.markdown import cell, link


def test_cells_are_short_single_lines():
    assert "\n" not in cell("a\n\nb") and len(cell("x" * 1000)) == 301


def test_only_web_addresses_become_links():
    assert link("https://example.org/a?b=1") == "[example.org/a?b=1](https://example.org/a?b=1)"
    for url in ("javascript:alert(1)", "https://a b", "https://a)(", ""):
        assert "](" not in link(url)
