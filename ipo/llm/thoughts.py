"""What a reasoning model thinks aloud, told from what it answers: examples in its thoughts are no answers."""

from __future__ import annotations

import re

_NAMES = (
    r"(?:[a-z]{1,16}[:_])?(?:think|thinking|thoughts?|thought_process|reason|reasoning|rationale|reflection|analysis"
    r"|scratchpad|antthinking|cot|inner_monologue)"
)
_CLOSE = re.compile(
    rf"</{_NAMES}>|\[/{_NAMES}\]|◁/{_NAMES}▷|<\|/{_NAMES}\|>|<\|end_?(?:of_)?{_NAMES}\|>|<channel\|>|<unused95>",
    re.IGNORECASE,
)
_OPEN = re.compile(
    rf"<{_NAMES}(?:\s[^<>]{{0,99}})?>|\[{_NAMES}\]|◁{_NAMES}▷|<\|{_NAMES}\|>|<\|(?:start|begin)_?(?:of_)?{_NAMES}\|>|<\|channel>|<unused94>",
    re.IGNORECASE,
)
_FINAL = re.compile(r"<\|channel\|>\s{0,9}final\b[^<]{0,99}(?:<\|constrain\|>[^<]{0,99})?<\|message\|>")
_HARMONY = ("<|channel|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>")
_BARE_ANALYSIS = re.compile(r"\s{0,99}analysis(?=[A-Z\"'{<])")
"""gpt-oss's channels where a server left out their marks: `analysisWe need ...assistantfinal{...}`."""
_BLOCK = re.compile(
    r"\s{0,99}(?:<([^\W\d_][\w:-]{0,39})>|\[([A-Z][\w:-]{0,39})\]|【([^\W\d_]\w{0,39})】|◁([^<>◁▷]{1,40})▷)",
    re.IGNORECASE,
)
_ANSWERS = re.compile(
    r"(final[_-]?)?(answer|output|response|result|reply|json|prompt|proposal|solution)|final|ins|class"
    r"|html|body|head|div|span|p|b|i|u|a|br|hr|em|strong|code|pre|ul|ol|li|h\d"
)
"""Tags that hold an answer or dress one up; a reply that begins with any other begins with thoughts."""


def answer_of(text: str) -> str | None:
    """What follows the thoughts in a reply; all of it where there are none; None where they never end."""
    if "<|channel|>" in text or _BARE_ANALYSIS.match(text):
        return _final_channel(text)
    closes = list(_CLOSE.finditer(text))
    rest = text[closes[-1].end() :] if closes else text
    if _OPEN.search(rest):
        return None
    return rest if closes else _after_first_blocks(rest)


def thinks_aloud(text: str) -> bool:
    """Whether a reply holds thoughts, ended or not."""
    return answer_of(text) != text


def _final_channel(text: str) -> str | None:
    """What gpt-oss says in its channel `final`."""
    finals = list(_FINAL.finditer(text))
    if finals:
        rest = text[finals[-1].end() :]
        return rest[: min((place for mark in _HARMONY if (place := rest.find(mark)) >= 0), default=len(rest))]
    if "<|channel|>" in text:
        return None
    _, mark, rest = text.rpartition("assistantfinal")
    return rest if mark else None


def _after_first_blocks(text: str) -> str | None:
    """The text without the blocks in unknown tags that it begins with, such as `<plan>...</plan>`."""
    place = 0
    while block := _BLOCK.match(text, place):
        name, mark = next(filter(None, block.groups())), block.group().strip()
        if _ANSWERS.fullmatch(name.casefold()):
            break
        end = text.find(f"{mark[0]}/{name}{mark[-1]}", block.end())
        if end < 0:
            return text[place:] if mark[0] == "[" else None
        place = end + len(mark) + 1
    return text[place:]
