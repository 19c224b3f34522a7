"""Content negotiation: which format reads a body, which writes its answer, and what is refused with which words."""

from __future__ import annotations

import pytest

from salver.errors import SalverError
from salver.frames import Form
from salver.protocols.media import ENDPOINTS, FORMS, negotiate


def form(endpoint: str, content_type: str = "", accept: str = "", length: str = "") -> Form:
    found = negotiate(Form(endpoint), content_type, accept, length)
    assert isinstance(found, Form), found
    return found


def refusal(endpoint: str, content_type: str = "", accept: str = "") -> SalverError:
    found = negotiate(Form(endpoint), content_type, accept)
    assert isinstance(found, SalverError), found
    return found


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("kind", ["", "application/json", "application/json; charset=UTF-8", "application/ld+json"])
def test_json_is_every_endpoints_own(endpoint: str, kind: str) -> None:
    assert form(endpoint, kind, "*/*") == Form(endpoint)


@pytest.mark.parametrize("endpoint", ["native", "invocations"])
@pytest.mark.parametrize("reader", ["csv", "jsonlines", "npy", "npz", "arrow", "recordio"])
def test_each_form_of_rows_has_its_reader_and_knows_its_endpoint(endpoint: str, reader: str) -> None:
    for kind in FORMS[reader]:
        assert form(endpoint, kind.upper()) == Form(reader, {"endpoint": endpoint})
        assert form(endpoint, "", kind) == Form(endpoint, {"answer": reader})
        assert form(endpoint, kind, kind) == Form(reader, {"answer": reader, "endpoint": endpoint})


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("text/html, text/csv;q=0.9, */*;q=0.1", "csv"),
        ("application/json;q=0.2, application/x-npy", "npy"),
        ("text/csv;q=0, application/json", None),
        ("text/*", "csv"),
        ("application/*", None),
        ("application/x-npy;q=nonsense, application/json;q=0.1", None),
    ],
)
def test_the_best_liked_answer_is_given(accept: str, answer: str | None) -> None:
    assert form("native", "", accept) == Form("native", {"answer": answer} if answer else None)


@pytest.mark.parametrize("said", ["present", "absent"])
def test_csv_may_say_whether_it_has_a_header(said: str) -> None:
    kind = f'text/csv; charset="utf-8"; header={said}'
    assert form("invocations", kind) == Form("csv", {"endpoint": "invocations", "header": said})


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ("native", "text/csv; charset=latin-1"),
        ("native", "text/csv; header=maybe"),
        ("native", "application/pdf"),
        ("invocations", "application/json; version=2"),
        ("invocations", "text/csv; label_size=1"),
        ("invocations", "application/x-recordio"),
        ("invocations", "application/octet-stream"),
        ("native", "text/libsvm"),
        ("v1", "text/csv"),
        ("v2", "application/x-npy"),
        ("native", ";;=;charset"),
    ],
)
def test_other_bodies_are_refused_with_what_is_read(endpoint: str, kind: str) -> None:
    problem = refusal(endpoint, kind)
    assert (problem.code, problem.meaning.http) == ("unsupported-media-type", 415)
    assert all(FORMS[each][0] in problem.hint for each in ENDPOINTS[endpoint])


def test_libsvm_is_read_at_invocations_and_never_written() -> None:
    for kind in FORMS["libsvm"]:
        assert form("invocations", kind) == Form("libsvm", {"endpoint": "invocations"})
        assert refusal("invocations", "", kind).meaning.http == 406


@pytest.mark.parametrize(("endpoint", "accept"), [("native", "image/png"), ("v1", "text/csv"), ("native", "*/*;q=0")])
def test_other_answers_are_refused_with_what_is_written(endpoint: str, accept: str) -> None:
    problem = refusal(endpoint, "", accept)
    assert (problem.code, problem.meaning.http) == ("not-acceptable", 406)
    assert "application/json" in problem.hint
