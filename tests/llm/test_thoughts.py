"""A prompt is read from what follows the thoughts, whatever marks them; an example inside them is never one."""

import json
import time

import pytest

from ipo.errors import PromptError
from ipo.llm.base import ReplyForm
from ipo.llm.parse import MAX_ANSWER, read_prompt
from ipo.llm.thoughts import answer_of

EXAMPLE = json.dumps({"before": "an example of a", "after": "."})
ANSWER = json.dumps({"before": "a photo of a", "after": "."})
TAGGED = "<INS>an example of a <CLASS>.</INS>", "<INS>a photo of a <CLASS>.</INS>"
MARKS = {
    "think": ("<think>", "</think>"),
    "capitals": ("<THINK>\n", "\n</THINK>"),
    "opened by the template": ("", "</think>"),
    "thinking": ("<thinking>", "</thinking>"),
    "thought": ("<thought>", "</thought>"),
    "thoughts": ("<thoughts>", "</thoughts>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "reflection": ("<reflection>", "</reflection>"),
    "seed": ("<seed:think>", "</seed:think>"),
    "claude": ("<antThinking>", "</antThinking>"),
    "scratchpad": ("<scratchpad>", "</scratchpad>"),
    "unknown tag": ("<plan>", "</plan>"),
    "two unknown tags": ("<plan>x</plan>\n<critique>", "</critique>"),
    "unknown in brackets": ("[PLAN]", "[/PLAN]"),
    "magistral": ("[THINK]", "[/THINK]"),
    "kimi": ("◁think▷", "◁/think▷"),
    "cohere": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "openthinker": ("<|begin_of_thought|>", "<|end_of_thought|>\n<|begin_of_solution|>"),
    "gemma": ("<|channel>thought\n", "<channel|>"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "gpt-oss with a schema": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
    ),
    "gpt-oss with a tool": (
        "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>commentary<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "gpt-oss without its marks": ("analysisWe need JSON. ", "assistantfinal"),
    "twice": ("<think>", f"</think>Wait. <think>No: {EXAMPLE}</think>"),
}


@pytest.mark.parametrize("name", MARKS)
def test_the_answer_is_what_follows_the_thoughts(name: str) -> None:
    start, end = MARKS[name]
    thoughts = f"{start}Perhaps {EXAMPLE}? It's {{good}}.{end}"
    assert read_prompt(f"{thoughts}\n{ANSWER}", "sides").text == "a photo of a <CLASS>."
    assert read_prompt(f"{thoughts}\n```json\n{ANSWER}\n```<|return|>", "sides").text == "a photo of a <CLASS>."
    thoughts = f"{start}Perhaps {TAGGED[0]}?{end}".replace(EXAMPLE, TAGGED[0])
    assert read_prompt(f"{thoughts}\n{TAGGED[1]}", "free").text == "a photo of a <CLASS>."


@pytest.mark.parametrize("name", [name for name in MARKS if MARKS[name][0]])
def test_an_example_in_thoughts_without_an_end_or_an_answer_is_no_prompt(name: str) -> None:
    start, end = MARKS[name]
    for text in (f"{start}Perhaps {EXAMPLE}", f"{start}Perhaps {EXAMPLE}{end}", f"{start}Perhaps {EXAMPLE}{end}None."):
        if name == "unknown in brackets" and end not in text:
            continue  # no mark of thoughts, unless it is closed
        if name == "twice" and end not in text:
            text = f"{text}</think>Wait. <think>"
        with pytest.raises(PromptError):
            read_prompt(text, "sides")


@pytest.mark.parametrize(
    "text",
    [
        f"<answer>{ANSWER}</answer>",
        f"<output>\n{ANSWER}\n</output>",
        f"<b>{ANSWER}</b>",
        f"[JSON] {ANSWER}",
        f"Thinking of photos: {ANSWER}",
        f"<final_answer>{ANSWER}</final_answer>",
        ANSWER.replace(".", " in [thought]."),
    ],
)
def test_what_only_looks_like_thoughts_is_read(text: str) -> None:
    if "thought]" in text:
        assert answer_of(text) is None, "a mark that opens thoughts is one anywhere: a reject, never a guess"
    else:
        assert read_prompt(text, "sides").text == "a photo of a <CLASS>."


def test_a_line_break_inside_a_text_is_a_space() -> None:
    assert read_prompt('{"before": "a photo\n\tof a", "after": "."}', "sides").text == "a photo of a <CLASS>."


LONG = 300_000
HARD = {
    "braces": "{" * LONG,
    "open objects": '{"a":' * (LONG // 5),
    "open objects in lists": '[{"a":' * (LONG // 6),
    "open texts": '{"' * (LONG // 2),
    "escapes": '{"\\"' * (LONG // 4),
    "prose": '{"a": "b", x ' * (LONG // 13),
    "long text": '{"before": "' + "a" * LONG,
    "long prompt": json.dumps({"before": "a " * (MAX_ANSWER // 2), "after": "."}),
    "tags": "<INS>" * (LONG // 5),
    "closing tags": "</INS>" * (LONG // 6),
    "thoughts": "<think>" * (LONG // 7),
    "ends of thoughts": "</think>" * (LONG // 8),
    "blocks": "<a1></a1>" * (LONG // 9),
    "blocks that never end": "".join(f"<a{n}>" for n in range(LONG // 8)),
    "channels": "<|channel|>" * (LONG // 11),
    "finals": "<|channel|>final<|message|>" * (LONG // 27),
    "final": "<|channel|>final" + "x" * LONG,
    "spaces": " " * LONG,
    "spaces and a tag": " " * LONG + "<",
    "analysis": "analysis" * (LONG // 8),
    "invisible": "\u200b" * LONG,
    "brackets": "[" * LONG,
    "kimi": "◁" * LONG,
}


@pytest.mark.parametrize("form", ["line", "sides", "free"])
@pytest.mark.parametrize("name", HARD)
def test_no_reply_takes_long_to_read(name: str, form: ReplyForm) -> None:
    started = time.process_time()
    with pytest.raises(PromptError):
        read_prompt(HARD[name], form)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("end", [ANSWER, f"<think>{'{' * 500}</think>{ANSWER}", f"{'{x} ' * 50}{ANSWER}"])
def test_some_stray_braces_do_no_harm(end: str) -> None:
    assert read_prompt(end, "sides").text == "a photo of a <CLASS>."


@pytest.mark.parametrize("tag", ["<思考>", "<мысли>", "<réflexion>", "【思考】", '<think kind="long">', "<plan>"])
def test_thoughts_in_marks_of_any_language_are_told_from_the_answer(tag: str) -> None:
    close = f"{tag[0]}/{tag[1:].partition(' ')[0].rstrip(tag[-1])}{tag[-1]}"
    example = ANSWER.replace("photo", "drawing")
    assert read_prompt(f"{tag}Perhaps {example}{close}\n{ANSWER}", "sides").text == "a photo of a <CLASS>."
    with pytest.raises(PromptError, match="without an end"):
        read_prompt(f"{tag}Perhaps {example}", "sides")
