"""What a model yielded, put together; and pieces on the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from salver.errors import SalverError
from salver.frameworks.pieces import gathered
from salver.gateway.chunked import Chunked


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([["a", "x"], ["b", "y"]], ["ab", "xy"]),
        ([[1.0], [2.0]], [2.0]),
        ([{"text": ["a"], "n": [1]}, {"text": ["b"], "n": [2]}], {"text": ["ab"], "n": [2]}),
        ([(["a"], [1]), (["b"], [2])], (["ab"], [2])),
        ([pd.DataFrame({"text": ["a"]}), pd.DataFrame({"text": ["b"]})], {"text": ["ab"]}),
        ([np.array(["a"]), np.array(["b"])], ["ab"]),
    ],
)
def test_texts_are_put_together_and_the_rest_is_the_last(pieces: list[Any], whole: Any) -> None:
    assert gathered(pieces) == whole


def test_a_model_that_yields_nothing_or_loses_rows_is_told_so() -> None:
    with pytest.raises(SalverError, match="yielded nothing"):
        gathered([])
    with pytest.raises(SalverError, match="different numbers of rows"):
        gathered([["a"], ["b", "c"]])


def test_pieces_are_chunks_and_end_with_an_empty_one() -> None:
    chunked = Chunked("text/event-stream", framed=True)
    assert chunked.piece(b"data: 1\n\n") == b"9\r\ndata: 1\n\n\r\n"
    assert chunked.piece(b"") == b""
    assert chunked.end(b"") == b"0\r\n\r\n"
    assert chunked.end(b"{}") == b"17\r\nevent: error\ndata: {}\n\n\r\n0\r\n\r\n"


def test_without_chunks_the_end_of_the_connection_is_the_end() -> None:
    chunked = Chunked("application/jsonlines", framed=False)
    assert chunked.headers.count(b"\r\n") == 2
    assert chunked.piece(b"1\n") == b"1\n"
    assert chunked.end(b"{}") == b'{"error":{}}\n'
