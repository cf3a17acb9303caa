"""The image feature store: what it returns, what it computes again, and what it survives."""

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ipo.clip import features as features_module
from ipo.clip import hashes as contents
from ipo.clip.features import ImageFeatureStore
from ipo.clip.hashes import ContentHashes
from ipo.clip.pictures import Pictures, decode
from ipo.data.images import load_image
from ipo.data.types import Item
from ipo.errors import DataError, ModelError
from tests.clip.picture_clip import PictureClip, draw_pictures, thumbnail
from tests.processes import run_process


def one_by_one(items):
    """The features of each image, encoded alone."""
    clip = PictureClip()
    return torch.cat([clip.encode_images(thumbnail(load_image(item.path))[None]) for item in items])


def store(clip, tmp_path, **options):
    return ImageFeatureStore(clip, tmp_path / "store", workers=options.pop("workers", 0), **options)


def test_features_are_those_of_each_image_alone_in_the_order_asked_for(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 21)[::-1]
    kept, features = store(PictureClip(), tmp_path).load([*items, items[3]])
    assert kept == (*items, items[3])
    torch.testing.assert_close(features, one_by_one(kept), atol=1e-6, rtol=0)


def test_a_second_store_reads_and_encodes_nothing(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 9)
    _, first = store(PictureClip(), tmp_path).load(items)
    clip = PictureClip()
    _, second = store(clip, tmp_path).load(items[::-1])
    assert clip.shapes == []
    assert torch.equal(second, first.flip(0))


def test_only_new_images_are_encoded(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 24)
    store(PictureClip(), tmp_path).load(items[:10])
    clip = PictureClip()
    _, features = store(clip, tmp_path).load(items)
    assert len(clip.shapes) == 2
    torch.testing.assert_close(features, one_by_one(items), atol=1e-6, rtol=0)


def test_content_counts_and_not_the_name(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 4)
    store(PictureClip(), tmp_path).load(items)
    moved = [item.path.rename(item.path.with_stem(f"moved{item.label}")) for item in items]
    moved_items = [Item(path, item.label) for path, item in zip(moved, items, strict=True)]
    clip = PictureClip()
    _, features = store(clip, tmp_path).load(moved_items)
    assert clip.shapes == []
    torch.testing.assert_close(features, one_by_one(moved_items), atol=1e-6, rtol=0)


def test_a_changed_picture_is_encoded_again(tmp_path):
    items, others = draw_pictures(tmp_path / "pictures", 3), draw_pictures(tmp_path / "others", 3, seed=1)
    store(PictureClip(), tmp_path).load(items)
    items[1].path.write_bytes(others[1].path.read_bytes())
    os.utime(items[1].path, ns=(1, 1))
    _, features = store(PictureClip(), tmp_path).load(items)
    torch.testing.assert_close(features, one_by_one(items), atol=1e-6, rtol=0)


def test_a_picture_that_changes_between_hash_and_pixels_gets_no_features(tmp_path, monkeypatch):
    items, others = draw_pictures(tmp_path / "pictures", 3), draw_pictures(tmp_path / "others", 3, seed=1)
    hashed = ContentHashes.of

    def change_after(self, paths):
        found = hashed(self, paths)
        others[1].path.replace(items[1].path)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(ContentHashes, "of", change_after)
        with pytest.raises(DataError, match=r"001\.png: the file was changed while it was read"):
            store(PictureClip(), tmp_path).load(items)
    _, features = store(PictureClip(), tmp_path).load(items)
    torch.testing.assert_close(features, one_by_one(items), atol=1e-6, rtol=0)


def test_folders_that_change_places_take_their_features_along(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**18))
    here, there = tmp_path / "here", tmp_path / "there"
    items = draw_pictures(here, 3)
    others = draw_pictures(there, 3, seed=1)
    for item in (*items, *others):
        item.path.write_bytes(item.path.read_bytes().ljust(5000, b"0"))
        os.utime(item.path, ns=(1, 1))
    store(PictureClip(), tmp_path).load([*items, *others])
    here.rename(tmp_path / "spare")
    there.rename(here)
    (tmp_path / "spare").rename(there)
    _, features = store(PictureClip(), tmp_path).load(items)
    torch.testing.assert_close(features, one_by_one(items), atol=1e-6, rtol=0)


def test_another_model_has_features_of_its_own(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 3)
    _, first = store(PictureClip(), tmp_path).load(items)
    other = PictureClip(weights="11")
    _, second = store(other, tmp_path).load(items)
    assert len(other.shapes) == 1
    assert not torch.allclose(first, second)
    names = [json.loads(file.read_text())["weights"] for file in (tmp_path / "store").glob("*/model.json")]
    assert sorted(names) == ["0", "11"]


def test_all_batches_have_one_shape(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 11)
    clip = PictureClip()
    store(clip, tmp_path, batch_size=4).load(items)
    assert clip.shapes == [(4, 3, 8, 8)] * 3


def test_unreadable_images_are_counted_and_named_and_the_others_kept(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 12)
    items[2].path.write_bytes(b"no picture")
    items[5].path.write_bytes(items[5].path.read_bytes()[:100])
    items[7].path.unlink()
    with pytest.raises(DataError, match=r"3 of 12 images cannot be read.*skip_unreadable") as caught:
        store(PictureClip(), tmp_path).load(items)
    assert all(items[i].path.name in str(caught.value) for i in (2, 5, 7))
    clip = PictureClip()
    store(clip, tmp_path).load([item for item in items if item.label not in (2, 5, 7)])
    assert clip.shapes == []


def test_unreadable_images_are_left_out_where_allowed_with_a_warning(tmp_path, caplog):
    items = draw_pictures(tmp_path / "pictures", 12)
    for number in range(8):
        items[number].path.write_bytes(b"no picture %d" % number)
    kept, features = store(PictureClip(), tmp_path, skip_unreadable=True).load(items)
    assert kept == tuple(items[8:])
    torch.testing.assert_close(features, one_by_one(kept), atol=1e-6, rtol=0)
    assert "8 of 12 images" in caplog.text
    assert "and 3 more" in caplog.text


def test_nothing_readable_gives_no_features(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 1)
    items[0].path.write_bytes(b"")
    kept, features = store(PictureClip(), tmp_path, skip_unreadable=True).load(items)
    assert kept == ()
    assert features.shape == (0, PictureClip().dim)


def test_an_interrupted_extraction_keeps_what_it_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "SHARD_IMAGES", 16)
    items = draw_pictures(tmp_path / "pictures", 40)
    with pytest.raises(KeyboardInterrupt):
        store(PictureClip(batches=3), tmp_path).load(items)
    clip = PictureClip()
    _, features = store(clip, tmp_path).load(items)
    assert len(clip.shapes) == 2
    torch.testing.assert_close(features, one_by_one(items), atol=1e-6, rtol=0)


def test_stores_that_write_at_the_same_time_do_not_harm_each_other(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 20)
    first, second = store(PictureClip(), tmp_path), store(PictureClip(), tmp_path)
    first.shards.open()
    second.shards.open()
    _, left = first.load(items[:14])
    _, right = second.load(items[6:])
    assert torch.equal(left[6:], right[:8])
    _, features = store(PictureClip(batches=0), tmp_path).load(items)
    torch.testing.assert_close(features, one_by_one(items), atol=1e-6, rtol=0)


def test_a_damaged_shard_is_named(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 3)
    store(PictureClip(), tmp_path).load(items)
    [shard] = (tmp_path / "store").glob("*/*.safetensors")
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(DataError, match=rf"{shard.name}.*Delete it"):
        store(PictureClip(), tmp_path).load(items)


class BrokenClip(PictureClip):
    """Gives one image of each batch a feature that is no number."""

    value = float("nan")

    def encode_images(self, pixels: Tensor) -> Tensor:
        features = super().encode_images(pixels)
        features[2, 3] = self.value
        return features


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_no_numbers_are_an_error_that_names_model_and_image(value, tmp_path):
    items, clip = draw_pictures(tmp_path / "pictures", 3), BrokenClip()
    clip.value = value
    with pytest.raises(ModelError, match=r"pictures gives 1 of 3 images features that are no numbers.*002\.png"):
        store(clip, tmp_path).load(items)
    assert not list((tmp_path / "store").glob("*/*.safetensors"))


def test_stored_features_that_are_no_numbers_are_an_error(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 3)
    store(PictureClip(), tmp_path).load(items)
    [shard] = (tmp_path / "store").glob("*/*.safetensors")
    tensors = load_file(shard)
    tensors["features"] = torch.full_like(tensors["features"], float("nan"))
    save_file(tensors, shard)
    with pytest.raises(ModelError, match=r"pictures gives 3 of 3 images.*000\.png.*Delete"):
        store(PictureClip(), tmp_path).load(items)


def test_a_lost_or_damaged_memory_of_hashes_costs_only_time(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 3)
    store(PictureClip(), tmp_path).load(items)
    for content in (b'{"torn": [1, ', b"[]"):
        (tmp_path / "store" / "contents.json").write_bytes(content)
        store(PictureClip(batches=0), tmp_path).load(items)


def test_a_cache_that_cannot_be_written_is_done_without_after_one_warning(tmp_path, caplog):
    items = draw_pictures(tmp_path / "pictures", 5)
    (tmp_path / "store").write_text("a file in the way")
    kept, features = store(PictureClip(), tmp_path).load(items)
    torch.testing.assert_close(features, one_by_one(kept), atol=1e-6, rtol=0)
    messages = [record.getMessage() for record in caplog.records]
    assert len({message.partition("(")[0] for message in messages}) == 1
    assert "cannot write to the cache: a file stands where a folder is needed" in messages[0]
    assert "IPO_CACHE" in messages[0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_worker_processes_decode_the_same(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 40)
    items[3].path.write_bytes(b"no picture")
    paths = [item.path for item in items]
    for alone, helped in zip(decode(paths, thumbnail, 0), decode(paths, thumbnail, 2), strict=True):
        if isinstance(alone, str) or isinstance(helped, str):
            assert alone == helped
        else:
            assert torch.equal(alone, helped)


def test_workers_are_sent_paths_and_the_transform_alone(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 1)
    assert len(pickle.dumps(Pictures([items[0].path], thumbnail, [b"0" * 16]))) < 1000


@pytest.mark.slow
def test_two_processes_share_the_work_and_both_have_the_result_of_one(tmp_path):
    items = draw_pictures(tmp_path / "pictures", 37)
    items[4].path.write_bytes(b"no picture")
    script = Path(__file__).with_name("extract_share.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    command += [str(tmp_path / "pictures"), str(tmp_path / "shared"), str(tmp_path)]
    done = run_process(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    kept, alone = store(PictureClip(), tmp_path, skip_unreadable=True).load(items)
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(result["features"], alone)
        assert result["kept"] == len(kept) == 36
        assert result["batches"] == 3
