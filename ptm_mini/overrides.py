"""Settings by dotted name, from config.json and from the command line, strictly: a misspelt one is never accepted.

python train.py --set model.width=64 --set prompts.length=4
"""
import dataclasses
import difflib

from ptm_mini.config import METHODS, STAGES, InputError, get, keys


OWNER = {"prompts": "prompt", "router": "prompt", "lora": "lora", "adapter": "adapter"}      # of a group of settings


def reads(method, key):
    """Whether what a member of METHODS learns depends on a setting."""
    group, _, rest = key.partition(".")
    stage = rest.split(".")[0]
    if group == "damage" or key == "train.fraction":
        return method != "backbone"
    if group == "train" and any(stage in STAGES[other] for other in METHODS):
        return stage in STAGES[method]
    if group in OWNER:
        return method == OWNER[group]
    return True


def replace(config, changes):
    """A copy of `config` with {dotted key: value}; raises InputError for an unknown key or a value of a wrong type."""
    tree = dataclasses.asdict(config)
    for key, value in changes.items():
        *path, name = key.split(".")
        if key not in keys(config):
            raise InputError(f"setting {key}: no such setting; {nearest(key, list(keys(config)))}")
        branch = tree
        for step in path:
            branch = branch[step]
        branch[name] = value
    return from_dict(type(config), tree)


def from_dict(kind, tree, prefix=""):
    """Build the dataclass `kind` from nested dicts, strictly: every field there, none besides, each of its type."""
    if not isinstance(tree, dict):
        raise InputError(f"setting {prefix.rstrip('.')}={tree!r}: expected a group of settings")
    names = [f.name for f in dataclasses.fields(kind)]
    for name in tree:
        if name not in names:
            raise InputError(f"setting {prefix}{name}: no such setting; {nearest(name, names)}")
    values = {}
    for item in dataclasses.fields(kind):
        key = prefix + item.name
        if item.name not in tree:
            raise InputError(f"setting {key} is missing: expected a value of type {item.type.__name__}")
        value = tree[item.name]
        if dataclasses.is_dataclass(item.type):
            value = from_dict(item.type, value, key + ".")
        elif item.type is float and type(value) is int:
            value = float(value)
        elif type(value) is not item.type:
            raise InputError(f"setting {key}={value!r}: expected {item.type.__name__}, not {type(value).__name__}")
        values[item.name] = value
    return kind(**values)


def parse(text, like):
    """Turn `text` from the command line into a value of the type of `like`; unchanged where it can't be."""
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return type(like)(text)
    except ValueError:
        return text


def override(config, assignments):
    """Apply command-line overrides, a list of "key=value"."""
    changes = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: expected KEY=VALUE, such as prompts.length=4")
        changes[key] = parse(text, get(config, key)) if key in keys(config) else text
    return replace(config, changes)


def nearest(word, words):
    """How to mend an unknown word: the nearest valid one, or all of them."""
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(words)}"
