"""Tokenizers by name: read through transformers once, stored as one file that opens without it."""

import json
import socket
import sys
import time

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tandem_datasets.errors import TandemError
from tandem_policies import hub
from tandem_policies.files import load_network, save
from tandem_policies.network import create
from tandem_policies.tokenizer import TextTokenizer, build_tokenizer, packaged_tokenizer
from tandem_policies.tokenizer_source import fetch_tokenizer

CORPUS = [f"find the {colour} block" for colour in ("red", "green", "blue", "yellow")] * 5
SMALL = {"dim": 32, "heads": 2, "fusion_heads": 4, "vision_depth": 1, "head_dim": 32}


def save_fast(tokenizer: Tokenizer, folder, **special: str) -> str:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory) -> str:
    """As GPT-2's: an end, no padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return save_fast(tokenizer, tmp_path_factory.mktemp("bpe"), eos_token="<|end|>")


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory) -> str:
    """As BERT's: lower case, a beginning, an end and padding of its own; truncation and padding in its file."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=600, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=30, pad_token="[PAD]")
    folder = tmp_path_factory.mktemp("bert")
    return save_fast(tokenizer, folder, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def test_a_word_piece_tokenizer_speaks_as_its_own_library_makes_it(word_piece):
    from transformers import AutoTokenizer

    ours, theirs = fetch_tokenizer(word_piece), AutoTokenizer.from_pretrained(word_piece)
    ids, mask = ours.encode(["Find the RED block", "find"], 48)
    rows = theirs(["Find the RED block", "find"], truncation=False, padding=True)
    assert ids.tolist() == rows["input_ids"]
    assert mask.astype(int).tolist() == rows["attention_mask"]
    assert ours.decode(ids[0]) == "find the red block"
    assert ours.ids("find") == tuple(theirs("find", add_special_tokens=False)["input_ids"])
    assert (ours.pad, ours.size) == (0, len(theirs))


def test_what_is_stored_says_it_all_again(word_piece, byte_level):
    for name, pad in ((word_piece, None), (byte_level, "<|end|>")):
        first = fetch_tokenizer(name, pad)
        again = TextTokenizer(first.text, "here")
        texts = ["find the red block", "x", ""]
        assert (again.pad, again.size) == (first.pad, first.size)
        assert all(
            (one == other).all() for one, other in zip(again.encode(texts, 9), first.encode(texts, 9), strict=True)
        )


def test_a_policy_with_another_tokenizer_opens_without_transformers(body, batch_of, byte_level, tmp_path, monkeypatch):
    network = create("tinyvla", body(), tokenizer=byte_level, tokenizer_pad="<|end|>", **SMALL).eval()
    assert network.language.embedding.num_embeddings == network.tokenizer.size
    assert network.tokenizer.size != packaged_tokenizer().size
    batch = batch_of(network)
    directory = save(network, tmp_path / "policy")
    for module in ("transformers", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    again = load_network(directory)
    assert torch.equal(again.predict(batch), network.predict(batch))
    assert again.tokenizer.text == network.tokenizer.text
    with pytest.raises(ImportError):
        fetch_tokenizer(byte_level)


def test_a_larger_vocabulary_than_allowed_is_refused(body, byte_level):
    with pytest.raises(TandemError, match=r"the tokenizer has \d+ ids \(allowed: vocab_size 260\)"):
        create("tinyvla", body(), tokenizer=byte_level, tokenizer_pad="<|end|>", vocab_size=260, **SMALL)
    roomy = create("tinyvla", body(), tokenizer=byte_level, tokenizer_pad="<|end|>", vocab_size=512, **SMALL)
    assert roomy.language.embedding.num_embeddings == 512


def test_a_tokenizer_without_padding_says_what_it_could_pad_with(body, byte_level):
    with pytest.raises(TandemError, match=r"has no padding token \(wanted: tokenizer_pad=.*such as '<\|end\|>'\)"):
        create("tinyvla", body(), tokenizer=byte_level, **SMALL)
    with pytest.raises(TandemError, match=r"tokenizer_pad is '<none>' \(allowed: one of its tokens, such as"):
        fetch_tokenizer(byte_level, "<none>")
    with pytest.raises(TandemError, match=r"tokenizer_pad is '<none>' .*packaged tokenizer"):
        create("tinyvla", body(), tokenizer_pad="<none>")


def test_folders_without_a_tokenizer_are_refused(tmp_path):
    with pytest.raises(TandemError, match=r"the folder holds none of its files \(wanted: tokenizer.json"):
        fetch_tokenizer(str(tmp_path))
    with pytest.raises(TandemError, match="no such folder"):
        fetch_tokenizer(str(tmp_path / "nowhere"))
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(TandemError, match="cannot be read") as caught:
        fetch_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)
    (tmp_path / "tokenizer.json").write_text(build_tokenizer(CORPUS))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["x.X", None]}}))
    with pytest.raises(TandemError, match="contains custom code"):
        fetch_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    assert fetch_tokenizer(str(tmp_path)).pad == 0


@pytest.mark.parametrize("name", ["../up", "a/b/c", "-x", "with space/x", "", "~nobody-of-this-name/x", "x" * 300])
def test_what_can_be_no_hub_name_is_never_asked_for(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # whatever lies beside the checkout
    monkeypatch.setattr(hub, "_snapshot", pytest.fail)
    with pytest.raises(TandemError, match="no such folder"):
        fetch_tokenizer(name)


def test_a_hub_name_without_network_fails_soon(monkeypatch, tmp_path):
    """Regression: transformers asks again for 47 s before it gives up."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "getproxies", dict)
    begin = time.monotonic()
    with pytest.raises(TandemError, match=r"hub cannot be reached \(give a local folder or connect\)"):
        fetch_tokenizer("tandem-tests/no-such-model")
    assert time.monotonic() - begin < 10
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "_reachable", pytest.fail)
    with pytest.raises(TandemError, match="HF_HUB_OFFLINE is set"):
        fetch_tokenizer("tandem-tests/no-such-model")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    with pytest.raises(TandemError, match="TRANSFORMERS_OFFLINE is set"):
        fetch_tokenizer("tandem-tests/no-such-model")


def test_a_network_that_breaks_off_is_told_as_such(monkeypatch):
    """Regression: the repository was said to hold none of the files."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "_reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as good as a cut cable
    with pytest.raises(TandemError, match=r"not in the cache, and the hub cannot be reached \(give"):
        fetch_tokenizer("tandem-tests/no-such-model")


@pytest.mark.parametrize(
    ("proxy", "knocked"),
    [
        ("http://proxy:3128", ("proxy", 3128)),
        ("proxy:3128", ("proxy", 3128)),
        ("http://proxy", ("proxy", 80)),
        ("https://proxy", ("proxy", 443)),
        ("http://proxy:port", None),
    ],
)
def test_the_door_that_is_knocked_at(monkeypatch, proxy, knocked):
    """Regression: without http:// or a port another door was tried, and the hub counted as unreachable."""
    tried: list[object] = []

    def refuse(address: object, _: object) -> None:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(hub, "getproxies", lambda: {"https": proxy})
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert not hub._reachable()
    assert tried == ([knocked] if knocked else [])


def test_a_network_that_does_not_answer_is_waited_for_in_vain_but_not_long(monkeypatch):
    def silent(*_: object) -> None:
        time.sleep(3)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    monkeypatch.setattr(hub, "_ANSWER_S", 0.2)
    begin = time.monotonic()
    assert not hub._reachable()
    assert time.monotonic() - begin < 2
