"""Texts without labels: Wikipedia extracts in both of wikiextractor's formats, and plain files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamer.errors import UsageError
from streamer.model.spec import InputSpec, TextInput
from streamer.training.data import Data, open_data
from tests.datasets import spec

READER = spec(inputs=InputSpec(text=TextInput(max_tokens=16)))


def texts(data: Data) -> list[str]:
    return sorted([*data.training.texts(), *data.validation.texts(), *data.test.texts()])


def article(number: int, *paragraphs: str) -> str:
    title = f"Title {number}"
    opening = f'<doc id="{number}" url="https://example.org/?curid={number}" title="{title}">'
    return "\n".join([opening, title, "", *paragraphs, "", "</doc>", ""])


def as_json(number: int, *paragraphs: str) -> str:
    title = f"Title {number}"
    text = "\n\n".join([title, *paragraphs])
    return json.dumps({"id": str(number), "url": "https://example.org", "title": title, "text": text}) + "\n"


@pytest.mark.parametrize("form", [article, as_json])
def test_paragraphs_of_wikipedia_are_texts_and_an_article_is_in_one_part(tmp_path: Path, form: object) -> None:
    assert callable(form)
    for folder, numbers in (("AA", range(12)), ("AB", range(12, 24))):
        (tmp_path / folder).mkdir()
        content = "".join(form(n, f"first of {n}, a café", f"second of {n}") for n in numbers)
        (tmp_path / folder / "wiki_00").write_text(content, "utf-8")
    data = open_data(tmp_path, READER)
    assert texts(data) == sorted(
        f"{w} of {n}{t}" for n in range(24) for w, t in (("first", ", a café"), ("second", ""))
    )
    for part in (data.training, data.validation, data.test):
        own = [text.split(" of ")[1].split(",")[0] for text in part.texts()]
        assert own
        assert all(own.count(number) == 2 for number in own)
    example = data.training[0]
    assert example.labels == {}
    assert example.sample.present == (False, False, True, False)


def test_plain_text_is_one_a_line_or_divided_by_blank_lines(tmp_path: Path) -> None:
    lines, runs = tmp_path / "lines.txt", tmp_path / "runs.txt"
    lines.write_bytes(b"one\r\n two \nthree\nfour\n")
    runs.write_text("\none\ngoes on\n\n\ntwo\n  \nthree\nfour\n\n", "utf-8")
    assert texts(open_data(lines, READER)) == ["four", "one", "three", "two"]
    assert [t.split() for t in texts(open_data(runs, READER))] == [["one", "goes", "on"], ["three", "four"], ["two"]]


def test_a_folder_of_text_files_is_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_text("three\nfour\n")
    assert texts(open_data(tmp_path, READER)) == ["four", "one", "three", "two"]


def test_the_same_text_twice_is_in_one_part(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"text {n % 20}\n" for n in range(40)))
    data = open_data(path, READER)
    parts = [set(part.texts()) for part in (data.training, data.validation, data.test)]
    assert all(parts)
    assert sum(map(len, parts)) == 20


def test_what_is_wrong_with_a_line_is_told(tmp_path: Path) -> None:
    plain, wiki, lines = tmp_path / "a.txt", tmp_path / "wiki_00", tmp_path / "wiki_01"
    plain.write_bytes(b"one\ntwo\ncaf\xe9\nthree\nfour\n")
    (bad,) = open_data(plain, READER, refuse_bad=False).bad
    assert str(bad) == "a.txt line 3: is not UTF-8 text: convert it, e.g. with iconv"
    wiki.write_text(article(1, "x") + "stray\n" + article(2, "y") + article(3, "z"))
    (bad,) = open_data(wiki, READER, refuse_bad=False).bad
    assert str(bad) == "wiki_00 line 7: is outside of <doc …> and </doc>"
    lines.write_text(as_json(1, "x") + "{}\n" + as_json(2, "y") + as_json(3, "z"))
    (bad,) = open_data(lines, READER, refuse_bad=False).bad
    assert bad.where == "wiki_01 line 2"
    assert bad.reason.startswith("is no article of wikiextractor: Object missing required field")


def test_a_dump_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wiki_00"
    path.write_text((article(1, "x") + article(2, "y"))[:-8])
    with pytest.raises(UsageError, match=r"is truncated: the article of line 7 has no </doc>"):
        open_data(path, READER)


def test_text_is_no_use_to_a_model_without_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    inputs = InputSpec(image=spec().inputs.image)
    with pytest.raises(UsageError, match=r"a.txt line 1: has none of what the model takes: image"):
        open_data(tmp_path / "a.txt", spec(inputs=inputs))
