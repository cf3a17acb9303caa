"""Hugging Face datasets: with the library where it is installed, and with a stand-in that keeps the part used here."""

import json
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ipo.data import archives
from ipo.data.load import load_dataset
from ipo.errors import DataError, ModelError
from tests.data.builders import class_tree, encoded
from tests.hub_server import serving_hub
from tests.processes import run_process
from tests.test_hub import TOKEN


class Image:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class ClassLabel:
    def __init__(self, *names: str) -> None:
        self.names = list(names)


class Value:
    pass


class Split:
    """Rows with features, as `datasets.Dataset` has them."""

    def __init__(self, features, rows, fingerprint="f"):
        self.features, self.rows, self._fingerprint = features, rows, fingerprint

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)

    def cast_column(self, column, feature):
        assert isinstance(self.features[column], Image)
        assert not feature.decode
        return self


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for `datasets`: a dict of datasets by name and configuration."""
    found: dict[tuple[str, str | None], Any] = {}

    def load(name, config, revision=None):
        if (name, config) not in found:
            raise ModuleStandIn.exceptions.DatasetsError(f"Dataset '{name}' doesn't exist on the Hub")
        return found[name, config]

    class ModuleStandIn(ModuleType):
        exceptions = SimpleNamespace(DatasetsError=type("DatasetsError", (Exception,), {}))

    module = ModuleStandIn("datasets")
    vars(module).update(load_dataset=load, Dataset=Split, Image=Image)
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr("ipo.net.hub.require_dataset", lambda name, revision, instead: None)
    return found


def rows(*labels, column="label", **more):
    return [{"image": {"bytes": encoded("PNG"), "path": None}, column: label, **more} for label in labels]


FEATURES = {"image": Image(), "label": ClassLabel("tabby_cat", "dog")}


def test_splits_names_and_images_are_taken(hub):
    hub["org/pets", None] = {
        "train": Split(FEATURES, rows(1, 0, 1)),
        "validation": Split(FEATURES, rows(0)),
        "test": Split(FEATURES, rows(1, -1, None)),
        "extra": Split(FEATURES, rows(0)),
    }
    dataset = load_dataset("hf:org/pets")
    assert dataset.name == "pets"
    assert dataset.classnames == ("tabby cat", "dog")
    assert [[item.label for item in part] for part in (dataset.train, dataset.val, dataset.test)] == [
        [1, 0, 1],
        [0],
        [1],
    ]
    assert dataset.train[0].path.read_bytes() == encoded("PNG")
    assert dataset.train[0].path.suffix == ".png"
    assert dataset.split_source == "hf:org/pets"


def test_more_than_nine_classes_keep_the_order_of_the_features(hub):
    features = {"image": Image(), "label": ClassLabel(*"lkjihgfedcba")}
    hub["x", None] = {"train": Split(features, rows(*range(12))), "test": Split(features, rows(11))}
    assert load_dataset("hf:x").classnames == tuple("lkjihgfedcba")


def test_one_split_is_divided(hub):
    hub["x", None] = Split(FEATURES, rows(*[0, 1] * 10))
    dataset = load_dataset("hf:x")
    assert (len(dataset.train), len(dataset.test)) == (14, 6)
    assert dataset.split_source == "hf:x, seeded test (1)"


def test_a_changed_dataset_is_copied_again(hub):
    hub["x", None] = Split(FEATURES, rows(0, 1), "old")
    first = load_dataset("hf:x")
    hub["x", None] = Split(FEATURES, rows(0, 1, 1), "new")
    assert load_dataset("hf:x").root != first.root


def test_only_the_free_disk_bounds_what_has_no_archive(hub, monkeypatch):
    hub["x", None] = Split(FEATURES, rows(0, 1))
    size = 2 * len(encoded("PNG"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=size - 1))
    with pytest.raises(DataError, match="more than the disk has room for"):
        load_dataset("hf:x")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=size))
    monkeypatch.setattr(archives, "MIN_ALLOWANCE", 1)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    assert len(load_dataset("hf:x").train) == 2


def test_options_name_the_configuration_and_the_columns(hub):
    features = {"image": Image(), "fine": ClassLabel("a", "b"), "coarse": ClassLabel("c", "d"), "text": Value()}
    hub["x", "small"] = Split(features, rows(0, 1, 1, 0, column="fine", coarse=0))
    with pytest.raises(DataError, match=r"which column holds the label.*\?label=COLUMN. Columns: image, fine, coarse"):
        load_dataset("hf:x?config=small")
    assert load_dataset("hf:x?config=small&label=fine").classnames == ("a", "b")
    with pytest.raises(DataError, match=r"unknown option 'lable'.*Known: config"):
        load_dataset("hf:x?lable=fine")


def test_what_cannot_be_loaded_is_one_error(hub):
    with pytest.raises(DataError, match=r"cannot load 'none': Dataset 'none' doesn't exist on the Hub"):
        load_dataset("hf:none")
    hub["x", None] = {"all": Split(FEATURES, rows(0, 1))}
    with pytest.raises(DataError, match="no split is called train"):
        load_dataset("hf:x")


def test_the_last_copy_is_used_where_the_hub_cannot_be_asked(hub, monkeypatch, caplog):
    hub["x", None] = Split(FEATURES, rows(0, 1))
    first = load_dataset("hf:x")
    hub.clear()

    def unreachable(name, revision, instead):
        raise ModelError("the dataset cannot be fetched", where=f"hf:{name}", remedy=instead)

    monkeypatch.setattr("ipo.net.hub.require_dataset", unreachable)
    assert load_dataset("hf:x").split_hash == first.split_hash
    assert "the last copy of hf:x is used: the dataset cannot be fetched" in caplog.text
    with pytest.raises(DataError, match=r"cannot be fetched \(hf:other\)\. .*hf:FOLDER"):
        load_dataset("hf:other")
    monkeypatch.setenv("IPO_OFFLINE", "1")
    assert load_dataset("hf:x").split_hash == first.split_hash
    with pytest.raises(DataError, match="IPO_OFFLINE forbids"):
        load_dataset("hf:other")


def write_parquet(folder):
    """A dataset as the hub has them: one file with two classes of pictures."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True)
    pictures = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = {
        "image": pyarrow.array([{"bytes": encoded("PNG"), "path": None}] * 10, type=pictures),
        "label": pyarrow.array([0, 1] * 5),
    }
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), folder / "train.parquet")


LOAD = """
from ipo.data.load import load_dataset
from ipo.errors import IpoError
try:
    print(*load_dataset("hf:org/pets").classnames)
except IpoError as error:
    print(error)
"""


def test_the_real_library_and_a_hub(tmp_path):
    pytest.importorskip("datasets")
    write_parquet(tmp_path / "served/org/pets")

    def load(**more: str) -> str:
        places = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "IPO_CACHE": str(tmp_path / "cache")}
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment |= {**places, "HF_TOKEN": TOKEN, "PYTHONPATH": os.pathsep.join(sys.path), **more}
        done = run_process([sys.executable, "-c", LOAD], env=environment, check=True)
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout.strip()

    with serving_hub(tmp_path / "served") as server:
        server.refused["org/pets"] = (401, "GatedRepo")
        refused = load()
        assert f"Accept its licence at {server.address}/datasets/org/pets, then set HF_TOKEN" in refused
        server.refused.clear()
        assert load() == "cat dog"
        assert load(HF_ENDPOINT="http://127.0.0.1:9") == "cat dog"
        assert load(IPO_OFFLINE="1") == "cat dog"
        server.asked.clear()
        assert "IPO_OFFLINE forbids" in load(IPO_OFFLINE="1", IPO_CACHE=str(tmp_path / "other"))
        assert server.requests("org/pets") == []


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'ipo-prompts\[hub\]'"):
        load_dataset("hf:x")


def test_a_local_folder_through_the_real_library(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    for split in ("train", "test"):
        class_tree(tmp_path / "pets" / split, {"cat": 3, "dog": 3})
    dataset = load_dataset(f"hf:{tmp_path / 'pets'}")
    assert dataset.classnames == ("cat", "dog")
    assert (len(dataset.train), len(dataset.test)) == (6, 6)
    datasets.load_dataset(str(tmp_path / "pets")).save_to_disk(str(tmp_path / "saved"))
    assert len(load_dataset(f"hf:{tmp_path / 'saved'}").test) == 6
