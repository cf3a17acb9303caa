import pytest

from ipo.errors import ConfigError
from ipo.render import render


def test_a_missing_variable_is_an_error_that_names_it_and_the_known_ones(tmp_path):
    template = tmp_path / "own.j2"
    template.write_text("{{ history }} {{ histroy }}")
    with pytest.raises(ConfigError, match=r"'histroy' is undefined.*own\.j2.*captions, history"):
        render(template, history=1, captions=2)


def test_templates_cannot_reach_into_python(tmp_path):
    template = tmp_path / "own.j2"
    template.write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(ConfigError, match="unsafe"):
        render(template)


def test_unknown_and_unreadable_templates_say_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"ipo\.j2"):
        render("nonsense.j2")
    with pytest.raises(ConfigError, match=r"gone\.j2"):
        render(tmp_path / "gone.j2")


def test_bad_syntax_names_the_file(tmp_path):
    template = tmp_path / "own.j2"
    template.write_text("{% for %}")
    with pytest.raises(ConfigError, match=r"own\.j2"):
        render(template)


@pytest.mark.parametrize("text", ["{{ rows + 1 }}", "{{ 1 / 0 }}", "{{ rows['a'] + 1 }}", "{{ 'a'.index('b') }}"])
def test_a_template_that_fails_is_an_error_that_names_it(tmp_path, text):
    template = tmp_path / "own.j2"
    template.write_text(text)
    with pytest.raises(ConfigError, match=r"own\.j2"):
        render(template, rows=[1])


def test_a_template_in_another_encoding_is_an_error_that_names_it(tmp_path):
    template = tmp_path / "own.j2"
    template.write_bytes("café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"not UTF-8.*own\.j2"):
        render(template)


def test_a_missing_included_template_is_the_one_named(tmp_path):
    template = tmp_path / "own.j2"
    template.write_text("{% include 'gone.j2' %}")
    with pytest.raises(ConfigError, match=r"no template 'gone\.j2'"):
        render(template)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <CLASS>", "`a <CLASS>`"),
        ("a `b` c", "``a `b` c``"),
        ("`` b `", "``` `` b ` ```"),
        ("a\n|b|", r"`a \|b\|`"),
        (" ", ""),
    ],
)
def test_a_cell_of_a_table_shows_any_text_as_it_is(tmp_path, text, expected):
    template = tmp_path / "own.j2"
    template.write_text("{{ text | cell }}")
    assert render(template, text=text) == expected


def test_html_pages_escape_and_texts_for_models_do_not(tmp_path):
    template = tmp_path / "own.j2"
    template.write_text("{{ prompt }}")
    assert render(template, prompt="a <CLASS>") == "a <CLASS>"
    page = render("serve-error.html.j2", error="a <CLASS>", write=False)
    assert "a &lt;CLASS&gt;" in page
    assert "<CLASS>" not in page
