"""Patch features: what they are for each kind of model, and that they are kept, mapped and announced."""

from __future__ import annotations

import shutil

import pytest
import timm
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn
from torch.nn.functional import normalize

from ipo.clip import patches as patches_module
from ipo.clip.adapter import Adapter, new_sides
from ipo.clip.base import Fingerprint
from ipo.clip.mini import Mini
from ipo.clip.patches import PatchStore, require_patches
from ipo.data.images import load_image
from ipo.errors import ModelError, RunError
from tests.clip.picture_clip import draw_pictures, thumbnail
from tests.clip.test_mini import CPU, LABELS, tiny_text
from tests.clip.tiny_openclip import DIM, TEXT, tiny_module, tiny_openclip
from tests.fakes import FakeClip

PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
VISION = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}


def vit(**vision):
    torch.manual_seed(1)
    return CLIP(DIM, vision_cfg={**VISION, **vision}, text_cfg=dict(TEXT)).eval().requires_grad_(False)


def written_out(visual, pixels):
    """Tokens of the last block by hand: blocks, norm, projection."""
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    x = visual.ln_pre(x)
    for block in visual.transformer.resblocks:
        x = block(x)
    return visual.ln_post(x) @ visual.proj


@pytest.mark.parametrize("vision", [{}, {"pool_type": "avg"}, {"pool_type": "avg", "final_ln_after_pool": True}])
def test_a_vision_transformer_tells_its_patches_normed_and_projected_like_the_whole(vision):
    module = vit(**vision)
    clip = tiny_openclip(module)
    features = clip.encode_patches(PIXELS)
    assert clip.patch_count == 16
    assert features.shape == (3, 17, DIM)
    torch.testing.assert_close(features[:, 0], module.encode_image(PIXELS))
    torch.testing.assert_close(normalize(features[:, 0], dim=-1), clip.encode_images(PIXELS))
    expected = written_out(module.visual, PIXELS)
    torch.testing.assert_close(features[:, 1:], expected[:, 1:], atol=1e-5, rtol=1e-5)
    if not vision:
        torch.testing.assert_close(features[:, 0], expected[:, 0], atol=1e-5, rtol=1e-5)


def resnet():
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "patch_size": None}
    return CLIP(DIM, vision_cfg=vision, text_cfg=dict(TEXT)).eval().requires_grad_(False)


@pytest.mark.parametrize(
    "make", [resnet, lambda: tiny_module(CoCa, context_length=76, embed_cls=True, output_tokens=True)]
)
def test_other_towers_are_refused_in_one_line(make):
    clip = tiny_openclip(make())
    if isinstance(make(), CoCa):
        clip.module.visual.attn_pool = nn.Identity()  # as in the released CoCa models
    assert clip.patch_count == 0
    with pytest.raises(ModelError, match=r"tiny has no patch features.*Take a ViT") as caught:
        require_patches(clip)
    assert "\n" not in str(caught.value)


def test_towers_with_a_text_side_of_their_own_are_no_exception():
    assert tiny_openclip(tiny_module(CustomTextCLIP)).patch_count == 4


@pytest.fixture(name="mini", scope="module", params=[False, True])
def _mini(request):
    torch.manual_seed(1)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=len(LABELS)).eval()
    adapter = None
    if request.param:
        sizes = {"plain": 6, "expert": 4, "experts": 3, "hidden": 8, "gate": 5}
        adapter = Adapter([new_sides(pooled=1280, style=448, text=16, **sizes)], weight=1.0).eval()
    return Mini(network, tiny_text(), LABELS, Fingerprint("tiny", "0", "none"), CPU, adapter)


def test_the_stand_in_reads_the_places_of_its_last_map_by_the_same_head(mini):
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    features = mini.encode_patches(pixels)
    assert mini.patch_count == 49
    assert features.shape == (2, 50, mini.dim)
    torch.testing.assert_close(features[:, 0], mini.encode_images(pixels), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, 50))
    network = mini.tower.classifier
    maps = network.forward_features(pixels)
    logits = network.classifier(maps.permute(0, 2, 3, 1).flatten(1, 2))
    torch.testing.assert_close(logits.mean(dim=1), network(pixels))
    torch.testing.assert_close(
        normalize(features[:, 1:, :16], dim=-1),
        mini.tower.conse(logits.flatten(0, 1)).view(2, 49, -1),
        atol=1e-4,
        rtol=0,
    )


class PatchClip(FakeClip):
    """A model for 8 x 8 thumbnails with four patches; counts what it encodes."""

    patch_count = 4

    def __init__(self) -> None:
        super().__init__()
        self.fingerprint = Fingerprint("patches", "0", "thumbnail")
        self.count = 0
        self.projection = torch.randn(5, 3 * 8 * 8, self.dim, generator=torch.Generator().manual_seed(0))

    def encode_images(self, pixels: Tensor) -> Tensor:
        return normalize(self.encode_patches(pixels)[:, 0], dim=-1)

    def encode_patches(self, pixels: Tensor) -> Tensor:
        self.count += len(pixels)
        return torch.einsum("bi,pid->bpd", pixels.flatten(1), self.projection)


def alone(items):
    clip = PatchClip()
    pixels = [thumbnail(load_image(item.path))[None] for item in items]
    return torch.cat([clip.encode_patches(one) for one in pixels])


def test_features_are_stored_in_half_precision_mapped_and_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(patches_module, "SHARD_IMAGES", 16)
    items = draw_pictures(tmp_path / "pictures", 21)[::-1]
    found = PatchStore(PatchClip(), tmp_path / "store", workers=0).load(items)
    assert len(found) == 21
    taken = found.take([4, 0, 20])
    assert taken.dtype == torch.float32
    expected = alone([items[4], items[0], items[20]])
    assert torch.equal(taken, expected.half().float())
    clip = PatchClip()
    store = PatchStore(clip, tmp_path / "store", workers=0)
    assert torch.equal(store.load(items[::-1]).take(range(21)), found.take(range(20, -1, -1)))
    assert clip.count == 0
    assert len(list((tmp_path / "store" / f"{clip.fingerprint.key}-patches").glob("*.safetensors"))) == 2
    assert {row.dtype for row in store.load(items).rows} == {torch.float16}


def test_what_they_will_take_is_said_before_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    items = draw_pictures(tmp_path / "pictures", 9)
    clip = PatchClip()
    clip.dim, clip.patch_count = 512, 196
    store = PatchStore(clip, tmp_path / "store", workers=0)
    assert store.announce(items) == f"patch features of 9 images take 2 MB in {tmp_path / 'cache'}"
    assert clip.count == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(RunError, match=r"9 images take 2 MB, and 1 MB are free.*IPO_CACHE"):
        store.announce(items)
    small = PatchStore(PatchClip(), tmp_path / "store", workers=0)
    small.load(items)
    assert small.announce(items) is None
