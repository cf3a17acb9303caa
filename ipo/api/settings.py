"""From the options of a command, and a file, to the settings that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ipo.api.paper import PAPER_SETTINGS, require_word_on_captions
from ipo.config import Settings, load_settings, merge, parse_assignments
from ipo.config.fields import flat, followers, nested
from ipo.data.load import target_parts, with_kind
from ipo.errors import ConfigError
from ipo.llm.presets import presets
from ipo.render import is_shipped
from ipo.runs.folder import read_settings, require_run
from ipo.runs.readers import Reader
from ipo.runs.scope import CONDITIONS, unread
from ipo.search.strategy import choose
from ipo.store.toml import read_toml

Assigned = Sequence[str] | Mapping[str, Any]
"""Any settings: `section.key=value` as `--set` gives it, or values by their names, dotted or nested."""


def make_settings(
    reader: Reader,
    config: Path | None,
    assignments: Assigned | None,
    flags: Mapping[str, Any],
    paper: bool = False,
) -> Settings:
    """Settings from the file, then `--paper`, then the flags that were given, then `--set`; all paths absolute.

    A setting that is not read is refused where a flag or `--set` gives it, or a file beside the setting
    that rules it out; other sections of a file are for other commands and methods, and passed over.
    """
    given = merge(flags, _nested(assignments or ()))
    by_flag = flat(flags)
    following = {key: by_flag[first] for key, first in followers().items() if first in by_flag}
    layers = merge(merge(PAPER_SETTINGS if paper else {}, nested(following)), given)
    settings = load_settings(config, layers)  # all of it has to be right, what is not read too
    if paper:
        require_word_on_captions(settings.data.shots, settings.captions)
    file = read_toml(config) if config else {}
    passed_over = unread(reader, settings)
    for key, reason in passed_over.items():
        decided_by_file = key in flat(file) and key in CONDITIONS and CONDITIONS[key][0] not in flat(given)
        if key in flat(given) or (reason and decided_by_file):
            raise not_read(reader, key, reason)
    for key in flat(given):
        if not reader.reads(key):  # options of strategies have no names that are known here
            raise not_read(reader, key, "")
    kept = {key: value for key, value in flat(merge(file, layers)).items() if key not in passed_over}
    return absolute_places(load_settings(None, nested(kept)))


def resumed_settings(reader: Reader, run: Path, assignments: Assigned | None, flags: Mapping[str, Any]) -> Settings:
    """The settings of a run with those that were given above them; whether these may change, is not looked at."""
    require_run(run)
    given = merge(flags, _nested(assignments or ()))
    settings = read_settings(run, given)
    for key, reason in unread(reader, settings).items():
        if key in flat(given):
            raise not_read(reader, key, reason)
    return absolute_places(settings)


def _nested(assignments: Assigned) -> dict[str, Any]:
    return nested(flat(assignments)) if isinstance(assignments, Mapping) else parse_assignments(assignments)


def not_read(reader: Reader, key: str, reason: str) -> ConfigError:
    """The error of a setting that a command or a method would pass over."""
    what = f"'{key}' is set, but {reason}" if reason else f"`{reader.name}` does not read the setting '{key}'"
    return ConfigError(what, remedy="Leave it out")


def absolute_places(settings: Settings) -> Settings:
    """The settings without a path that depends on the working folder, so that a run can be resumed from another one."""
    data, captioner, template = settings.data, settings.captions.captioner, settings.search.template
    changes: dict[str, dict[str, Any]] = {
        "data": {
            "dataset": absolute_place(with_kind(data.dataset)),
            "targets": tuple(absolute_target(target) for target in data.targets),
            "root": absolute(data.root),
            "names": absolute(data.names),
        },
        "clip": {"model": absolute_place(settings.clip.model)},
        "llm": {"spec": _model_place(settings.llm.spec)},
        "search": {"template": template_place(Path(template) if template else None)},
    }
    chosen = choose(settings.strategy)
    changes["strategy"] = {key: getattr(chosen.options, key) for key in settings.strategy.options}
    if captioner.startswith("hf:") and Path(captioner[3:]).is_dir():
        changes["captions"] = {"captioner": f"hf:{absolute(Path(captioner[3:]))}"}
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=values) for name, values in changes.items()}
    )


def absolute_target(spec: str) -> str:
    """The spec of a dataset to test on, perhaps with a domain, as `absolute_place` makes it."""
    name, domain = target_parts(spec)
    return absolute_place(with_kind(name)) + (f"@{domain}" if domain else "")


def absolute_place(spec: str) -> str:
    """The spec of a dataset or CLIP model; its path, if it has one, no longer depends on the working folder."""
    kind, colon, place = spec.partition(":")
    return f"{kind}:{absolute(Path(place))}" if colon and kind in ("folder", "csv", "wds", "local-dir") else spec


def _model_place(spec: str) -> str:
    """The spec of a language model, which may be a folder or a file; a preset of the same name goes first."""
    path = Path(spec).expanduser()
    return str(path.absolute()) if path.exists() and spec not in presets() else spec


def absolute(path: Path | None) -> Path | None:
    """A path that no longer depends on the working folder."""
    return None if path is None else path.expanduser().absolute()


def template_place(template: Path | None) -> str | None:
    """A shipped template by its name; one's own by a path that no longer depends on the working folder."""
    if template is None:
        return None
    return str(template) if is_shipped(str(template)) else str(absolute(template))
