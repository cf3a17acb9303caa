"""What is exported is loaded by the program that it is for, and gives the probabilities of the run."""

import ast
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from ipo import run as running
from ipo.cli.main import app
from ipo.clip.load import load_clip
from ipo.config import ClipSettings, load_settings
from ipo.data.types import Item
from ipo.errors import ConfigError, IpoError, ModelError
from ipo.export.classifier import as_safetensors, make_classifier
from ipo.export.source import read_exported
from ipo.export.texts import (
    format_string,
    snippet,
    snippets,
    to_clip_benchmark,
    transformers_model,
    transformers_values,
)
from ipo.methods import FitRun, find_method
from ipo.prompt import Prompt
from ipo.registry import available_methods
from ipo.scoring import ImageSet, PromptPredictor
from ipo.store.tensors import load_tensors
from tests.baselines.tiny import tiny_task
from tests.export.twins import save_twins
from tests.fakes import ScriptedLLM
from tests.processes import run_process

CLASSES = ("blue cup", "pen", "écharpe")
SCRIPT = [["a drawing of a <CLASS>.", "the “<CLASS>” of O'Neil"], ["my 100% <CLASS>, naïve", 'a "red" <CLASS>']]
LEARNED = ("coop", "linear-probe", "cocoop")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny model, pictures of three classes, and two runs: a search and a fit of CoOp."""
    place = tmp_path_factory.mktemp("export")
    (place / "model").mkdir()
    save_twins(place / "model")
    random = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 2)):
        for name in CLASSES:
            folder = place / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPO_CACHE", str(place / "cache"))
        patch.setattr("ipo.run.load_llm", lambda *_, **__: ScriptedLLM(SCRIPT))
        for method, own in (("ipo", None), ("zero-shot", None), *((name, {"epochs": 1}) for name in LEARNED)):
            job = running.prepare(method, settings(place), own)
            with running.start(job, place / method) as folder:
                running.run(job, folder)
    return place


def settings(place: Path):
    return load_settings(
        None,
        {
            "data": {"dataset": f"folder:{place / 'pictures'}", "shots": 2},
            "clip": {"workers": 0, "model": f"local-dir:{place / 'model'}"},
            "search": {"steps": 2, "candidates": 2, "english_only": False, "class_names_allowed": True},
        },
    )


@pytest.fixture(scope="module")
def clip(place):
    return load_clip(ClipSettings(model=f"local-dir:{place / 'model'}"), offline=True)


@pytest.fixture(scope="module")
def images(place) -> list[Image.Image]:
    return [Image.open(path) for path in sorted((place / "pictures" / "test").rglob("*.png"))]


@pytest.fixture(scope="module")
def features(clip, images):
    return clip.encode_images(torch.stack([clip.preprocess(image.convert("RGB")) for image in images]))


def expected(clip, features, prompts) -> torch.Tensor:
    """The probabilities of the predictor itself."""
    items = tuple(Item(Path(str(index)), 0) for index in range(len(features)))
    predictor = PromptPredictor(clip, tuple(map(Prompt, prompts)))
    return predictor.logits(ImageSet(items, features), sorted(CLASSES)).softmax(dim=-1)


def with_prompts(place: Path, folder: Path, *prompts: str) -> Path:
    """A copy of the search whose best prompt or prompts are others."""
    shutil.copytree(place / "ipo", folder)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    result["predictors"]["ipo"]["prompts"] = list(prompts)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def export(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


ENSEMBLE = ("a drawing of a <CLASS>.", "the “<CLASS>” of O'Neil")
ODD = 'ein „<CLASS>“ — 100 % "naïve" O’Neil'


def test_text_and_json_hold_the_prompts(place):
    best = read_exported(place / "ipo").prompts
    assert export(place / "ipo", "--to", "text") == "\n".join(best) + "\n"
    told = json.loads(export(place / "ipo", "--to", "json"))
    assert told["prompts"] == list(best)
    assert told["classnames"] == sorted(CLASSES)
    assert told["model"] == f"local-dir:{place / 'model'}"
    assert told["clip"]["weights"]
    assert told["versions"]["torch"]
    assert 0 <= told["test"]["base"]["accuracy"] <= 1
    several = json.loads(export(place / "ipo", "--to", "json", "--predictor", "ensemble"))
    assert several["prompts"] == list(read_exported(place / "ipo", "ensemble").prompts)


@pytest.mark.parametrize("prompts", [("a drawing of a <CLASS>.",), (ODD,), ENSEMBLE], ids=["plain", "odd", "several"])
def test_the_open_clip_file_classifies_as_the_run_does(place, clip, images, features, prompts, tmp_path, capsys):
    run = with_prompts(place, tmp_path / "run", *prompts)
    file = tmp_path / "classify.py"
    export(run, "--to", "open_clip", "--out", file)
    module = runpy.run_path(str(file))
    got = module["predict"](images, *module["build"]())
    torch.testing.assert_close(got, expected(clip, features, prompts), rtol=0, atol=TOLERANCE)
    assert module["CLASSNAMES"] == sorted(CLASSES)


def test_the_files_are_programs(place, clip, images, features, tmp_path, capsys, monkeypatch):
    paths = [image.filename for image in images]
    prompts = read_exported(place / "ipo").prompts
    best = expected(clip, features, prompts).max(dim=-1)
    wanted = [f"{path}\t{sorted(CLASSES)[c]}\t{p:.4f}" for path, c, p in zip(paths, best.indices, best.values)]
    for to in ("open_clip", "transformers"):
        file = tmp_path / f"{to}.py"
        export(place / "ipo", "--to", to, "--out", file)
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [str(file), *paths])
        runpy.run_path(str(file), run_name="__main__")
        assert capsys.readouterr().out.splitlines() == wanted


@pytest.mark.parametrize("prompt", ["a drawing of a <CLASS>.", ODD, "<CLASS>"], ids=["plain", "odd", "bare"])
def test_a_pipeline_of_transformers_classifies_as_the_run_does(place, clip, images, features, prompt, tmp_path):
    from transformers import pipeline

    file = tmp_path / "pipeline.json"
    export(with_prompts(place, tmp_path / "run", prompt), "--to", "transformers", "--out", file)
    values = json.loads(file.read_text(encoding="utf-8"))
    classify = pipeline("zero-shot-image-classification", model=values.pop("model"), dtype="float32")
    for image, wanted in zip(images, expected(clip, features, [prompt])):
        got = {answer["label"]: answer["score"] for answer in classify(image, **values)}
        assert [got[name] for name in sorted(CLASSES)] == pytest.approx(wanted.tolist(), abs=TOLERANCE)


@pytest.mark.parametrize("prompts", [("a drawing of a <CLASS>.",), ENSEMBLE])
def test_the_tensor_file_classifies_as_the_run_does(place, clip, features, prompts, tmp_path):
    file = tmp_path / "classifier.safetensors"
    export(with_prompts(place, tmp_path / "run", *prompts), "--to", "safetensors", "--out", file)
    with safe_open(file, framework="pt") as opened:
        matrix, told = opened.get_tensor("classifier"), opened.metadata()
    assert matrix.shape == (clip.dim, len(CLASSES))
    assert json.loads(told["classnames"]) == sorted(CLASSES)
    assert json.loads(told["prompts"]) == list(prompts)
    got = (float(told["logit_scale"]) * features @ matrix).softmax(dim=-1)
    torch.testing.assert_close(got, expected(clip, features, prompts), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("prompts", [("a drawing of a <CLASS>.",), ENSEMBLE])
def test_onnxruntime_classifies_as_the_run_does(place, clip, features, prompts, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    file = tmp_path / "classifier.onnx"
    export(with_prompts(place, tmp_path / "run", *prompts), "--to", "onnx", "--out", file)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = ["probabilities", "logits"]
    wanted = expected(clip, features, prompts)
    for length in (1.0, 3.0):  # of image features, which need not be of unit length
        got, logits = session.run(names, {"image_features": (length * features).numpy()})
        torch.testing.assert_close(torch.from_numpy(got), wanted, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(torch.from_numpy(logits).softmax(dim=-1), wanted, rtol=0, atol=TOLERANCE)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classnames"]) == sorted(CLASSES)


def read_as_clip_benchmark(file: Path, dataset: str) -> list[str]:
    """What `clip_benchmark.datasets.builder.build_dataset` makes of a template file: by the name, else imagenet1k's."""
    templates = json.loads(file.read_text(encoding="ascii"))
    return next(templates[key] for key in (dataset, "imagenet1k") if key in templates)


@pytest.mark.parametrize("prompts", [("a drawing of a <CLASS>.",), (ODD,), ENSEMBLE])
def test_the_template_file_of_clip_benchmark_says_the_prompts(place, prompts, tmp_path):
    file = tmp_path / "templates.json"
    export(with_prompts(place, tmp_path / "run", *prompts), "--to", "clip-benchmark", "--out", file)
    for dataset in ("pictures", "cifar10"):
        read = read_as_clip_benchmark(file, dataset)
        assert [template.format(c="pen") for template in read] == [
            prompt.replace("<CLASS>", "pen") for prompt in prompts
        ]
    classes = json.loads((tmp_path / "templates.classes.json").read_text(encoding="ascii"))
    assert classes == {"pictures": sorted(CLASSES)}


def test_clip_benchmark_itself_builds_the_classifier_of_the_run(place, clip, features, tmp_path):
    pytest.importorskip("clip_benchmark", reason="needs the package clip-benchmark")
    import open_clip
    from clip_benchmark.datasets.builder import build_dataset
    from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier

    file, names = tmp_path / "templates.json", tmp_path / "classes.json"
    export(with_prompts(place, tmp_path / "run", *ENSEMBLE), "--to", "clip-benchmark", "--out", file)
    classes = json.loads((tmp_path / "templates.classes.json").read_text())
    names.write_text(json.dumps({"dummy": classes["pictures"]}))  # their only dataset that needs no files
    built = build_dataset("dummy", custom_template_file=str(file), custom_classname_file=str(names))
    spec = f"local-dir:{place / 'model'}"
    model, _ = open_clip.create_model_from_pretrained(spec)
    tokenizer = open_clip.get_tokenizer(spec)
    matrix = zero_shot_classifier(model, tokenizer, built.classes, built.templates, "cpu", amp=False)
    got = (clip.logit_scale * features @ matrix).softmax(dim=-1)
    torch.testing.assert_close(got, expected(clip, features, ENSEMBLE), rtol=0, atol=TOLERANCE)


HOSTILE = [
    """both " and ' and ''' and \"\"\" <CLASS>""",
    "braces {x} {{y}} {} {0} <CLASS> {c}",
    "back\\slash \\n \\u0041 <CLASS>\\",
    "two\nlines\r\nand a tab\t<CLASS>\u2028\u2029",
    "{% raw %}{{ 7 * 7 }} {# no #} <CLASS>",
    "\u202eright to left\u202c 中文 🐈 naïve <CLASS>",
    "</script><b>&amp; <CLASS> <!--",
    "long " * 2000 + "<CLASS>",
]


@pytest.mark.parametrize("prompt", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_a_prompt_holds_is_the_same_text_in_every_format(place, prompt, tmp_path):
    run = with_prompts(place, tmp_path / "run", prompt)
    assert json.loads(export(run, "--to", "json"))["prompts"] == [prompt]
    source = export(run, "--to", "open_clip")
    assert "\u202e" not in source
    assert runpy.run_path(str(written(tmp_path / "a.py", source)))["PROMPTS"] == [prompt]
    templates = json.loads(export(run, "--to", "clip-benchmark"))
    filled = prompt.replace("<CLASS>", "a {b} c")
    assert templates["pictures"][0].format(c="a {b} c") == filled
    assert format_string(prompt, "{}").format("a {b} c") == filled
    nodes = list(ast.walk(ast.parse(export(run, "--to", "transformers"))))
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert {*CLASSES, transformers_values(read_exported(run))["hypothesis_template"]} <= constants


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("prompt", ["two\nlines <CLASS>", "{x} <CLASS>"])
def test_a_text_of_one_prompt_a_line_refuses_what_would_be_read_otherwise(place, prompt, tmp_path):
    with pytest.raises(IpoError, match="line breaks"):
        export(with_prompts(place, tmp_path / "run", prompt), "--to", "text")


@pytest.mark.parametrize("name", ["coop", "linear-probe"])
def test_what_was_learned_goes_into_tensors_and_nowhere_else(place, clip, features, name):
    exported, method = read_exported(place / name), find_method(name)
    classifier = make_classifier(exported, clip)
    options = method.configure("pictures", 2, exported.result.options)
    learned, _ = load_tensors(place / name / "learned.safetensors")
    items = tuple(Item(Path(str(index)), 0) for index in range(len(features)))
    assert method.restore is not None
    predictor = method.restore(clip, exported.classnames, options, learned)[name]
    wanted = predictor.logits(ImageSet(items, features), exported.classnames).softmax(dim=-1)
    got = (classifier.logit_scale * features @ classifier.matrix).softmax(dim=-1)
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE)
    truth = [index for index, _ in enumerate(CLASSES) for _ in range(2)]
    verdicts = json.loads((place / name / "correct.json").read_text())[name]["base"]
    assert verdicts == "".join("01"[int(row.argmax()) == one] for row, one in zip(got, truth))
    assert as_safetensors(classifier)
    for to in ("text", "json", "open_clip", "transformers", "clip-benchmark"):
        with pytest.raises(ConfigError, match=f"not made of prompts: what {name} learned cannot be written as text"):
            export(place / name, "--to", to)


def test_what_depends_on_the_image_and_what_is_not_kept_is_refused_in_a_line(place, clip):
    with pytest.raises(ConfigError, match="class features of 'cocoop' depend on the image"):
        make_classifier(read_exported(place / "cocoop"), clip)


def test_fixed_prompts_are_exported_too(place):
    assert export(place / "zero-shot", "--to", "text") == "a photo of a <CLASS>.\n"
    assert export(place / "ipo", "--to", "text", "--predictor", "hand-crafted") == "a photo of a <CLASS>.\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--predictor", "nobody"), "unknown predictor 'nobody'"),
        (("--to", "safetensors"), "--to safetensors needs a file"),
        (("--to", "onnx"), "--to onnx needs a file"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(place, arguments, words):
    with pytest.raises(ConfigError, match=words):
        export(place / "ipo", *(() if "--to" in arguments else ("--to", "json")), *arguments)


def test_several_prompts_are_refused_for_a_pipeline_that_takes_one(place, tmp_path):
    run = with_prompts(place, tmp_path / "run", *ENSEMBLE)
    with pytest.raises(ConfigError, match="takes one prompt"):
        export(run, "--to", "transformers")
    assert list(snippets(run)) == ["open_clip"]


def test_no_file_is_overwritten(place, tmp_path):
    written(tmp_path / "mine.txt", "mine")
    written(tmp_path / "t.classes.json", "mine")
    for to, name in (("text", "mine.txt"), ("clip-benchmark", "t.json")):
        with pytest.raises(ConfigError, match="this file exists"):
            export(place / "ipo", "--to", to, "--out", tmp_path / name)
    assert not (tmp_path / "t.json").exists()


def test_the_stand_in_is_no_model_of_other_libraries_and_that_is_said(place, tmp_path):
    run = with_prompts(place, tmp_path / "run", "a <CLASS>")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"model": "mini", "clip": result["clip"] | {"name": "mini"}}))
    for to in ("open_clip", "transformers"):
        with pytest.raises(ModelError, match="'mini', the offline stand-in, is neither"):
            export(run, "--to", to)
    assert snippets(run) == {}
    assert export(run, "--to", "text") == "a <CLASS>\n"


def test_other_weights_than_the_run_had_are_refused(place, clip, tmp_path):
    run = with_prompts(place, tmp_path / "run", "a <CLASS>")
    result = json.loads((run / "result.json").read_text())
    result["clip"]["weights"] = "0" * 64
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(ModelError, match="weights was '0000"):
        make_classifier(read_exported(run), clip)


def test_class_names_are_those_of_the_run_where_it_has_them(place, tmp_path):
    run = with_prompts(place, tmp_path / "run", "a <CLASS>")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"classnames": ["x", "y"]}))
    assert read_exported(run).classnames == ("x", "y")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("ViT-B-16-quickgelu/openai", "openai/clip-vit-base-patch16"),
        ("ViT-L-14-quickgelu/openai", "openai/clip-vit-large-patch14"),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("ViT-B-32/laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    ],
)
def test_a_model_has_its_name_in_transformers(spec, name):
    assert transformers_model(spec) == name


@pytest.mark.parametrize("spec", ["RN50-quickgelu/openai", "ViT-B-16-SigLIP/webli", "local-dir:/nowhere"])
def test_a_model_that_transformers_is_not_known_to_have_is_refused(spec):
    with pytest.raises(ModelError, match=r"for transformers is known|no config\.json"):
        transformers_model(spec)


def test_a_report_can_show_the_snippets(place):
    assert list(snippets(place / "ipo")) == ["transformers", "open_clip"]
    assert "pipeline(" in snippet(place / "ipo", "transformers")
    assert to_clip_benchmark(read_exported(place / "ipo")).isascii()


RESTORABLE = [name for name in available_methods() if find_method(name).restore]


@pytest.mark.parametrize("name", RESTORABLE)
def test_a_predictor_made_anew_from_what_was_learned_is_that_of_the_fit(name, tmp_path):
    method, task = find_method(name), tiny_task(tmp_path)
    options = method.configure("tiny", task.shots, {"epochs": 1})
    fitted = method.fit(task, options, FitRun(report=lambda _: None))
    assert method.restore is not None
    restored = method.restore(task.clip, task.classnames, options, fitted.learned)
    assert restored.keys() == fitted.predictors.keys()
    for predictor, other in zip(fitted.predictors.values(), restored.values()):
        wanted = predictor.logits(task.train, task.classnames)
        torch.testing.assert_close(other.logits(task.train, task.classnames), wanted, rtol=0, atol=1e-5)


def test_restorable_methods_are_these():
    assert {*RESTORABLE} >= {"coop", "lasp", "linear-probe", "clap"}


def test_a_mean_of_cosines_is_kept_as_such_and_no_code_claims_another_mean(place, clip, features, tmp_path):
    run = with_prompts(place, tmp_path / "run", *ENSEMBLE)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    result["predictors"]["ipo"]["aggregate"] = "score_mean"
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    exported = read_exported(run)
    classifier = make_classifier(exported, clip)
    texts = [[Prompt(text).fill(name) for name in exported.classnames] for text in ENSEMBLE]
    cosines = torch.stack([features @ clip.encode_texts(own).T for own in texts])
    torch.testing.assert_close(features @ classifier.matrix, cosines.mean(dim=0), rtol=0, atol=1e-5)
    for to in ("open_clip", "clip-benchmark"):
        with pytest.raises(ConfigError, match="the mean of the cosines"):
            export(run, "--to", to)
    assert json.loads(export(run, "--to", "json"))["aggregate"] == "score_mean"


def test_a_run_records_how_prompts_are_put_together_where_it_is_not_the_usual_way(place, monkeypatch):
    monkeypatch.setenv("IPO_CACHE", str(place / "cache"))
    job = running.prepare("waffle", settings(place))
    with running.start(job, place / "waffle") as folder:
        running.run(job, folder)
    assert read_exported(place / "waffle").aggregate == "score_mean"
    assert read_exported(place / "ipo").aggregate == "feature_mean"


def test_a_run_without_class_names_has_those_of_its_dataset_while_it_is_the_same(place, tmp_path):
    run = with_prompts(place, tmp_path / "run", "a <CLASS>")
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts.pop("classnames", None)
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    assert read_exported(run).classnames == tuple(sorted(CLASSES))
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    (run / "result.json").write_text(json.dumps(result | {"class_names": "others"}), encoding="utf-8")
    with pytest.raises(IpoError, match="other class names than the run"):
        export(run, "--to", "open_clip")


def test_texts_are_exported_without_a_heavy_library(place):
    code = (
        "import sys; from pathlib import Path; from ipo.export.source import read_exported\n"
        "from ipo.export.texts import TEXTS\n"
        f"exported = read_exported(Path({str(place / 'zero-shot')!r}))\n"
        "print([bool(make(exported)) for make in TEXTS.values()], {'torch', 'open_clip'} & {*sys.modules})"
    )
    assert run_process([sys.executable, "-c", code], check=True).stdout.split()[-1] == "set()"
