from __future__ import annotations

import json

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from ipo.errors import DataError
from ipo.methods import FitRun, Means
from ipo_baselines.contexts import first_context
from ipo_baselines.dual_alignment import METHOD, description_loss, source_of_texts
from ipo_baselines.plot import METHOD as PLOT
from ipo_baselines.plot import raw_texts
from tests.baselines.tiny import CLASSNAMES

QUIET = FitRun(report=lambda _: None)
FILE = {
    "red thing": ["a photo of the red thing", "grey"],
    "green": ["A Green stone."],
    "blue stone": ["the stone", "a blue stone", "blue photo"],
}
TEXTS = [
    ["a photo of the red thing", "red thing, which has grey"],
    ["A Green stone."],
    ["blue stone, which has the stone", "a blue stone", "blue stone, which has blue photo"],
]


@pytest.fixture(name="values")
def _values(tmp_path):
    path = tmp_path / "descriptions.json"
    path.write_text(json.dumps(FILE))
    return {"epochs": 3, "batch": 5, "n_ctx": 3, "prompts": 2, "descriptions": str(path)}


def test_without_the_text_side_it_is_plot_bit_for_bit(task, values):
    ours = METHOD.fit(task, METHOD.configure("tiny", 4, {**values, "alpha": 0}), QUIET)
    del values["descriptions"]
    theirs = PLOT.fit(task, PLOT.configure("tiny", 4, values), QUIET)
    assert torch.equal(ours.learned["context"], theirs.learned["context"])
    names = ["green", "grey"]
    logits = (f.predictors[name].logits(task.train, names) for f, name in ((ours, "dual-alignment"), (theirs, "plot")))
    assert torch.equal(*logits)


def test_the_text_side_is_the_loss_of_each_description_among_the_learned_texts(task, values):
    options = METHOD.configure("tiny", 4, values)
    source = source_of_texts(task, options)
    assert source(CLASSNAMES) == TEXTS
    raw = raw_texts(task.clip, first_context(task.clip, options, 1, 2), CLASSNAMES)
    each = [
        cross_entropy(task.clip.logit_scale * normalize(own, dim=-1) @ feature, torch.tensor(label))
        for own in raw
        for label, texts in enumerate(TEXTS)
        for feature in task.clip.encode_texts(texts)
    ]
    found = description_loss(task, source, 3.0)(raw)
    assert found.item() == pytest.approx(3 * torch.stack(each).mean().item(), abs=1e-10)


def test_the_text_side_keeps_contexts_nearer_to_the_descriptions(task, values):
    fits = [METHOD.fit(task, METHOD.configure("tiny", 4, {**values, "alpha": a, "epochs": 20}), QUIET) for a in (0, 50)]
    loss = description_loss(task, source_of_texts(task, METHOD.configure("tiny", 4, values)), 1.0)
    without, with_it = (float(loss(raw_texts(task.clip, fit.learned["context"], CLASSNAMES))) for fit in fits)
    assert with_it < without


def test_parts_and_a_resumed_fit_change_nothing(task, values, tmp_path):
    def options(**more):
        return METHOD.configure("tiny", 4, {**values, **more})

    whole = METHOD.fit(task, options(), QUIET).learned["context"]
    parts = METHOD.fit(task, options(pairs_at_once=1), QUIET).learned["context"]
    assert torch.allclose(parts, whole, atol=1e-10)

    class Killed(FitRun):
        def save(self, tensors, done):
            super().save(tensors, done)
            if done == 1:
                raise KeyboardInterrupt

    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        METHOD.fit(task, options(), Killed(folder, report=lambda _: None))
    resumed = METHOD.fit(task, options(), FitRun(folder, report=lambda _: None)).learned["context"]
    assert torch.equal(resumed, whole)


def test_what_it_needs_and_uses_is_declared(task, values):
    options = METHOD.configure("tiny", 4, values)
    assert METHOD.needs_patches(options)
    assert METHOD.uses(options, Means()) == {"labels", "llm_saw_class_names"}
    METHOD.check(task, options)
    assert "only the idea" in METHOD.summary
    assert METHOD.paper.startswith("after: ")


def test_a_class_of_the_fit_without_a_description_is_named(task, values, tmp_path):
    (tmp_path / "descriptions.json").write_text(json.dumps({**FILE, "green": []}))
    with pytest.raises(DataError, match="empty: 'green'"):
        METHOD.check(task, METHOD.configure("tiny", 4, values))
