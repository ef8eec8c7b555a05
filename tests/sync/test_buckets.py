"""Buckets of parameters."""

from __future__ import annotations

from operator import itemgetter

from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.sync.buckets import to_buckets

size_of = itemgetter(1)
sizes = st.lists(st.integers(0, 50), max_size=30)


@given(sizes, st.integers(1, 100))
def test_every_parameter_goes_once_in_order_and_no_bucket_overflows(sizes, limit):
    parameters = [(f"p{number}", size) for number, size in enumerate(sizes)]
    buckets = list(to_buckets(parameters, size=size_of, limit=limit))
    assert [pair for bucket in buckets for pair in bucket] == parameters
    assert all(bucket for bucket in buckets)
    assert all(sum(size for _, size in bucket) <= limit or len(bucket) == 1 for bucket in buckets)


@given(sizes, st.integers(1, 100))
def test_neighbouring_buckets_would_not_fit_into_one(sizes, limit):
    buckets = list(
        to_buckets([(str(n), size) for n, size in enumerate(sizes)], size=size_of, limit=limit)
    )
    for bucket, following in zip(buckets, buckets[1:], strict=False):
        assert sum(size for _, size in bucket) + following[0][1] > limit


def test_no_parameters_make_no_bucket():
    assert list(to_buckets([], size=len)) == []
