"""The page of the benchmark of films: every figure stands in it."""

from benchmarks.films import as_markdown


def test_the_page_has_every_figure():
    about = {"device": "here", "versions": {"python": "3"}, "date": "2026-01-01", "film_s": 3600.0, "target": 1.1}
    peaks = {"peak_bytes": 300 << 20, "peak_bytes_of_a_minute": 250 << 20, "ratio": 1.2}
    page = as_markdown([about | peaks | {"work": f"predict {n}", "real_time": x} for n, x in (("a", 9.0), ("b", 6.0))])
    for part in ("| `predict a` | 9.0 | 300 MiB | 250 MiB | 1.20 | 1.1 |", "1 and 60 minutes", "1.50 times as fast"):
        assert part in page
