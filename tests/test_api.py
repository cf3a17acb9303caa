"""What `import ipo` offers does what the commands do, says nothing, and reads runs back."""

import csv
import io
import json
import sys
import time
import warnings

import pytest

import ipo
from ipo.api.arguments import DataArguments, SearchArguments, given_settings, keyword_names
from ipo.errors import ConfigError, IpoError, RunError, UnknownName
from ipo.runs.readers import EVALUATE, OPTIMIZE, method_reader
from tests.processes import run_process
from tests.test_run import SCRIPT, pictures, shop  # noqa: F401 - fixtures

SMALL = {"search.candidates": 2, "search.english_only": False, "search.class_names_allowed": True, "clip.workers": 0}


@pytest.fixture
def found(shop, pictures, tmp_path):  # noqa: F811
    return ipo.optimize(dataset=pictures, shots=2, steps=2, settings=SMALL, out=tmp_path / "run")


def test_a_search_is_a_run_with_its_prompt_and_history(found, capsys, tmp_path):
    assert capsys.readouterr() == ("", "")
    assert found.best.prompt in {"a photo of a <CLASS>.", *(text for step in SCRIPT for text in step)}
    assert found.prompts == (found.best.prompt,)
    assert found.best.score.accuracy == max(row.accuracy for row in found.history if row.accuracy is not None)
    assert found.result.best.text == found.best.prompt
    assert found.classnames == ("blue", "green", "red")
    assert (found.method, found.status) == ("ipo", "done")
    assert found.settings.search.steps == 2
    again = ipo.load(str(tmp_path / "run"))
    assert [row.text for row in again.history] == [row.text for row in found.history]
    assert "run" in repr(again)
    assert "done" in repr(again)


def test_the_history_has_all_candidates_and_why_some_have_no_score(found):
    history = found.history
    lines = (found.path / "history.jsonl").read_text().splitlines()
    assert len(history) == len(lines) == 5
    rejects = history.filter(lambda row: row.accuracy is None)
    assert [row.text for row in rejects] == ["no slot | here"]
    assert rejects[0].reason
    best = history.filter(lambda row: row.accuracy is not None).sort(lambda row: row.loss)
    assert best[0].loss == min(row.loss for row in best)
    assert history[1:3].to_records()[0]["text"] == json.loads(lines[1])["text"]
    assert "5 candidates" in repr(history)


def test_a_notebook_shows_texts_as_texts():
    from ipo.api.table import Table

    page = Table([{"text": "<script>alert(1)</script>\x1b[2J", "accuracy": 0.5}], lambda row: row)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "<td>0.5</td>" in page


def test_progress_is_shown_where_it_is_asked_for(shop, pictures, tmp_path, capsys):  # noqa: F811
    ipo.optimize(dataset=pictures, shots=2, steps=2, settings=SMALL, out=tmp_path / "run", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "step 2/2" in err


def test_the_command_and_the_function_leave_the_same_history(found, shop, pictures, tmp_path):  # noqa: F811
    from typer.testing import CliRunner

    from ipo.cli.main import app

    shop.asked.clear()
    assigned = [word for key, value in SMALL.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    told = ["optimize", "-d", str(pictures), "--shots", "2", "--steps", "2", "--out", str(tmp_path / "other")]
    done = CliRunner().invoke(app, [*told, *assigned], catch_exceptions=False)
    assert done.exit_code == 0
    for name in ("history.jsonl", "config.toml", "correct.json"):
        assert (tmp_path / "other" / name).read_bytes() == (found.path / name).read_bytes(), name


def test_a_run_goes_on_with_more_steps(found, shop):  # noqa: F811
    shop.steps.append(["a print of a <CLASS>.", "<CLASS> at night"])
    longer = ipo.resume(found.path, steps=3)
    assert len(longer.history) == 7
    with pytest.raises(ConfigError, match=r"search\.candidates was 2"):
        ipo.resume(found.path, settings={"search.candidates": 3})


def test_a_method_is_fitted_and_prompts_are_tested(shop, pictures, tmp_path, capsys):  # noqa: F811
    run = ipo.fit("zero-shot", dataset=pictures, settings={"clip.workers": 0}, out=tmp_path / "zero")
    assert run.prompts == ("a photo of a <CLASS>.",)
    with pytest.raises(RunError, match="has no history"):
        _ = run.history
    rows = ipo.evaluate(["a photo of a <CLASS>.", "<CLASS>"], dataset=pictures, ensemble=True)
    assert len(rows) == 3
    assert rows[0].value == run.result.predictors["zero-shot"].base.value
    assert rows.to_records()[0]["n"] == 6
    assert capsys.readouterr() == ("", "")


MISTAKES = [
    (lambda: ipo.optimize(dataste="x"), UnknownName, "Did you mean 'dataset'"),  # type: ignore[call-arg]
    (lambda: ipo.optimize(offline=True), ConfigError, "no dataset is named"),
    (lambda: ipo.optimize(dataset="caltech", offline=True), UnknownName, "Did you mean 'caltech101'"),
    (lambda: ipo.optimize(dataset=".", settings={"search.stepz": 3}), ConfigError, "unknown key 'search.stepz'"),
    (lambda: ipo.fit("coop", dataset=".", steps=3), UnknownName, "unknown argument 'steps'"),
    (lambda: ipo.fit("coop", dataset=".", settings={"search.steps": 3}), ConfigError, "does not read the setting"),
    (lambda: ipo.fit("co-op", dataset="."), UnknownName, "Did you mean 'coop'"),
    (lambda: ipo.evaluate("a photo", dataset="."), IpoError, "<CLASS> exactly once"),
    (lambda: ipo.load("nowhere"), RunError, "no run here"),
    (lambda: ipo.resume("nowhere"), RunError, "no run here"),
    (lambda: ipo.optimize(dataset=".", steps=True), ConfigError, "a number is wanted"),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_the_errors_of_the_command(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, kind, words = MISTAKES[number]
    with pytest.raises(kind, match=words):
        call()
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_class_names_says_how_to_get_them(found, shop):  # noqa: F811
    path = found.path / "run.json"
    facts = json.loads(path.read_text())
    del facts["classnames"]
    path.write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"ipo\.resume"):
        _ = ipo.load(found.path).classnames
    assert ipo.resume(found.path).classnames == ("blue", "green", "red")


def test_the_keywords_are_the_options_of_the_commands():
    for reader, arguments in ((OPTIMIZE, SearchArguments), (EVALUATE, DataArguments)):
        assert set(keyword_names(reader)) == set(arguments.__annotations__)
    assert given_settings(OPTIMIZE, {"domains": "photo, sketch", "target": "pacs@art"}) == {
        "data": {"domains": ("photo", "sketch"), "targets": ("pacs@art",)}
    }
    assert "steps" not in keyword_names(method_reader("coop"))


def test_importing_the_package_takes_no_time_and_no_torch():
    code = "import sys, time; began = time.perf_counter(); import ipo; took = time.perf_counter() - began\n"
    code += "ipo.load, ipo.Run, ipo.optimize; print('torch' in sys.modules, sorted(ipo.__all__) == sorted("
    code += "name for name in dir(ipo) if name in ipo.__all__), took < 0.05)"
    done = run_process([sys.executable, "-c", code], check=True)
    assert done.stdout.split() == ["False", "True", "True"]


def test_a_name_that_is_not_there_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'optimise'"):
        _ = ipo.optimise
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from ipo import run

        assert callable(run.prepare)


def test_finished_runs_compare_as_the_command_compares_them(found, shop, pictures, tmp_path, monkeypatch):  # noqa: F811
    from typer.testing import CliRunner

    from ipo.cli.main import app

    ipo.fit("zero-shot", dataset=pictures, shots=2, settings={"clip.workers": 0}, out=tmp_path / "zero")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{}")
    table = ipo.compare([found, tmp_path / "zero", tmp_path / "broken"])
    assert "zero-shot" in repr(table)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in repr(table)
    assert "<pre>" in table._repr_html_()
    assert len(table.left_out) == 1
    assert "broken" in table.left_out[0]
    done = CliRunner().invoke(app, ["compare", str(found.path), str(tmp_path / "zero"), "--format", "csv"])
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    told = [{name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_records()]
    assert told == lines
    assert [row.method for row in ipo.compare(tmp_path)] == [row.method for row in table]
    with pytest.raises(ConfigError, match=r"no finished run in .*broken"):
        ipo.compare(tmp_path / "broken")


def test_a_long_history_is_read_in_a_moment(found):
    lines = (found.path / "history.jsonl").read_text().splitlines()
    scored = next(json.loads(line) for line in lines if "score" in json.loads(line))
    rows = [{**scored, "id": place, "step": place // 8, "text": f"a <CLASS> {place}"} for place in range(16_000)]
    (found.path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = ipo.load(found.path)
    began = time.process_time()
    assert len(run.history) == 16_000
    assert time.process_time() - began < 1


class _Shown(list[dict[str, str]]):
    """Stands in for IPython: what was shown below a cell, the last in the place of those before."""

    kernel = None

    def get_ipython(self):
        return self

    def display(self, data, **_):
        self.append(data)
        return self

    def update(self, data, **_):
        self.append(data)


def test_progress_in_a_notebook_is_a_line_below_the_cell(shop, pictures, tmp_path, monkeypatch, capsys):  # noqa: F811
    shown = _Shown()
    monkeypatch.setitem(sys.modules, "IPython", shown)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    common = {"dataset": pictures, "shots": 2, "steps": 2, "settings": SMALL}
    ipo.optimize(**common, out=tmp_path / "run", progress=True)
    texts = [data["text/plain"] for data in shown]
    assert any(text.startswith("step 2/2") for text in texts)
    assert any("image features" in text for text in texts)
    assert "step 2/2" not in capsys.readouterr().err
    shown.clear()
    shop.asked.clear()
    ipo.optimize(**common, out=tmp_path / "silent")
    assert shown == []


def test_a_data_frame_has_the_columns_of_the_records(monkeypatch):
    from ipo.api.table import Table

    class Frame:
        @staticmethod
        def from_records(records):
            return records

    table = Table([{"a": 1}, {"a": 2}], lambda row: row)
    monkeypatch.setitem(sys.modules, "pandas", type("Pandas", (), {"DataFrame": Frame}))
    assert table.to_pandas() == [{"a": 1}, {"a": 2}]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        table.to_pandas()
