"""What `mini` has learnt: each formula by a second way, the file of weights, and that tests' pictures are not in it."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from ipo.clip.adapter import Adapter, gated, load_adapter, new_sides, save_adapter, see
from ipo.clip.mini import ADAPTER_WEIGHTS, Mini
from ipo.errors import ModelError
from tests.clip.test_mini import CPU, LABELS, tiny_text

SIZES = {"pooled": 6, "style": 4, "text": 16, "plain": 5, "expert": 3, "experts": 2, "hidden": 8, "gate": 7}


def sides(seed):
    torch.manual_seed(seed)
    image, text = new_sides(**SIZES)
    return image.eval(), text.eval()


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_an_experts_evidence_counts_as_far_as_both_sides_choose_it(share):
    torch.manual_seed(0)
    plain, other = torch.randn(2, 5), torch.randn(3, 5)
    mine, theirs = torch.randn(2, 6), torch.randn(3, 6)
    gate, choice = torch.randn(2, 2).softmax(-1), torch.randn(3, 2).softmax(-1)
    scores = gated(plain, mine, gate, share) @ gated(other, theirs, choice, share).T
    for i in range(2):
        for j in range(3):
            by_hand = (1 - share) * torch.cosine_similarity(plain[i], other[j], dim=0)
            for k, piece in enumerate((slice(0, 3), slice(3, 6))):
                weight = (gate[i, k] * choice[j, k]).sqrt()
                by_hand = by_hand + share * weight * torch.cosine_similarity(mine[i, piece], theirs[j, piece], dim=0)
            assert torch.isclose(scores[i, j], by_hand, atol=1e-6)


def test_features_are_of_unit_length_and_two_seeds_speak_with_their_mean():
    first, second = sides(0), sides(1)
    pooled, style, conse, text = torch.rand(4, 6), torch.rand(4, 4), normalize(torch.randn(4, 16)), torch.randn(3, 16)
    text = normalize(text)

    def learned(weight, *chosen):
        adapter = Adapter(list(chosen), weight, share=0.7)
        image, words = adapter.image(pooled, style, conse), adapter.text(text)
        assert torch.allclose(image.norm(dim=1), torch.ones(4))
        assert image.shape[1] == words.shape[1] == 16 + adapter.width
        return (image @ words.T) * (1 + weight) - conse @ text.T

    mean = (learned(1.0, first) + learned(1.0, second)) / 2
    assert torch.allclose(learned(1.0, first, second), mean, atol=1e-6)
    assert torch.allclose(learned(2.0, first, second), 2 * mean, atol=1e-6)


def test_seeing_is_the_network_itself_and_its_style_is_mean_and_deviation():
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    maps = []
    hooks = [network.blocks[index].register_forward_hook(lambda *call: maps.append(call[2])) for index in (0, 1, 2, 4)]
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = network(pixels)
        for hook in hooks:
            hook.remove()
        logits, pooled, style = see(network, pixels)
        stem = network.bn1(network.conv_stem(pixels))
    assert torch.allclose(logits, plain, atol=1e-5)
    assert torch.allclose(pooled, network.global_pool(network.forward_features(pixels)).flatten(1), atol=1e-5)
    by_hand = [torch.cat([m.mean((2, 3)), m.var((2, 3), unbiased=False).sqrt()], 1) for m in (stem, *maps)]
    assert torch.allclose(style, torch.cat(by_hand, 1), atol=1e-3)


def test_weights_come_back_in_half_precision_and_a_damaged_file_is_an_error(tmp_path):
    adapter, path = Adapter([sides(0), sides(1)], 1.5, share=0.7), tmp_path / "weights"
    save_adapter(path, adapter, SIZES)
    again = load_adapter(path)
    assert (again.weight, again.share) == (1.5, 0.7)
    for name, value in adapter.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not the weights of mini"):
        load_adapter(path)
    save_file(load_file(ADAPTER_WEIGHTS), path)  # without the facts beside them
    with pytest.raises(ModelError, match="not the weights of mini"):
        load_adapter(path)
    with pytest.raises(ModelError, match="No such file"):
        load_adapter(tmp_path / "nothing")


def adapted_mini():
    torch.manual_seed(2)
    sizes = {"pooled": 1280, "style": 448, "text": 16, "plain": 5, "expert": 3, "experts": 2, "hidden": 8, "gate": 7}
    image, text = new_sides(**sizes)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=len(LABELS))
    fingerprint = type("F", (), {"precision": "float32", "name": "tiny", "key": "0"})()
    return Mini(network.eval(), tiny_text(), LABELS, fingerprint, CPU, Adapter([(image, text)], 1.0).eval())


def test_an_adapted_mini_keeps_the_contract():
    mini = adapted_mini()
    texts = mini.encode_texts(["a photo of dog", "a photo of old oak tree"])
    assert texts.shape == (2, mini.dim)
    assert mini.dim == 16 + 5 + 6
    assert torch.allclose(texts.norm(dim=1), torch.ones(2), atol=1e-6)
    context = mini.embed_words("a photo of")[None, None].clone().requires_grad_()
    learned = mini.encode_embeddings(["dog", "old oak tree"], context, tail="")
    assert torch.allclose(learned[0], texts, atol=1e-5)
    learned.sum().backward()
    assert context.grad is not None
    assert context.grad.abs().sum() > 0
    images = mini.encode_images(torch.randn(3, 3, 64, 64))
    assert images.shape == (3, mini.dim)
    assert torch.allclose(images.norm(dim=1), torch.ones(3), atol=1e-6)
    tower = mini.image_tower()
    tower(torch.randn(1, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in tower.adapter.images.parameters())
