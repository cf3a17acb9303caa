"""Hugging Face tokenizers and text towers as open_clip wraps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CustomTextCLIP
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, RobertaConfig

from ipo.clip.openclip import OpenClip, Preprocess
from ipo.clip.text.tokens import Tokens
from ipo.errors import PromptError
from tests.clip.tiny_openclip import DIM, tiny_module, to_pixels


def hugging_face_tokenizer(folder: Path) -> Any:
    """open_clip's wrapper around a small word-level tokenizer with [CLS] and [SEP]."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "x", "a", "photo", "of", "cat", "."]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    return open_clip.tokenizer.HFTokenizer(str(folder), context_length=9)


def test_hugging_face_tokenizers_count_without_truncation_and_pad_as_open_clip_does(tmp_path: Path) -> None:
    tokenizer = hugging_face_tokenizer(tmp_path)
    tokens = Tokens(tokenizer, 9)
    texts = ["a photo of a cat.", "cat", "a a a a a a a"]
    assert torch.equal(tokens.padded([tokens.sequence(text) for text in texts]), tokenizer(texts))
    assert tokens.readable(6)[4:] == ["x", "a"]
    with pytest.raises(PromptError, match="10 tokens"):
        tokens.sequence("a a a a a a a a")


def test_a_hugging_face_tower_reads_what_its_tokenizer_fills(tmp_path: Path) -> None:
    tokenizer = hugging_face_tokenizer(tmp_path)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 64,
    }
    config = RobertaConfig(vocab_size=10, pad_token_id=0, max_position_embeddings=514, **sizes)
    module = tiny_module(CustomTextCLIP)
    module.text = HFTextEncoder("", DIM, config=config, pooler_type="mean_pooler", proj_type="linear")
    clip = OpenClip.from_module(module, tokenizer, Preprocess(to_pixels, "tiny"), "tiny")
    texts = ["a photo of a cat.", "cat"]
    assert (module.text.context_length, clip.context_length) == (514, 9)
    seen = []
    module.text.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape))
    torch.testing.assert_close(clip.encode_texts(texts), module.encode_text(tokenizer(texts), normalize=True))
    assert seen == [(2, 9), (2, 9)]
    with pytest.raises(PromptError, match="10 tokens exceeds the 9"):
        clip.encode_texts(["a a a a a a a a"])
