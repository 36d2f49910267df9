"""The packaged tokenizer: any text, one way, rebuilt bit for bit."""

import pytest

from tandem_datasets.errors import TandemError
from tandem_policies.corpus import sentences
from tandem_policies.tokenizer import PACKAGED, TextTokenizer, build_tokenizer, packaged_tokenizer


def test_the_packaged_file_is_what_the_corpus_builds():
    assert PACKAGED.read_text("utf-8") == build_tokenizer(list(sentences())) + "\n"


@pytest.mark.parametrize("text", ["find the red block", "触れる 🤖 block", "a\tb  c", "naïve café", "0x{};<>"])
def test_any_text_survives_apart_from_its_case(text):
    ids, mask = packaged_tokenizer().encode([text], 96)
    assert mask.all()
    assert packaged_tokenizer().decode(ids[0]) == text
    assert ids.max() < packaged_tokenizer().size


def test_case_and_outer_blanks_do_not_matter():
    tokenizer = packaged_tokenizer()
    assert (tokenizer.encode([" Find the RED block\n"], 48)[0] == tokenizer.encode(["find the red block"], 48)[0]).all()


def test_rows_are_padded_and_cut():
    ids, mask = packaged_tokenizer().encode(["find the red block", "", "x" * 500], 8)
    assert ids.shape == mask.shape == (3, 8)
    assert mask.sum(1).tolist() == [4, 0, 8]
    assert packaged_tokenizer().encode([""], 8)[0].shape == (1, 1)


def test_a_broken_surrogate_is_no_crash():
    assert packaged_tokenizer().encode(["\ud800 red"], 48)[1].any()


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"model": {"type": "BPE"}}'])
def test_what_is_no_tokenizer_is_refused(text):
    with pytest.raises(TandemError, match="here: not a tokenizer"):
        TextTokenizer(text, "here")
