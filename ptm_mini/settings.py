"""What makes a dataclass a group of settings: a remark and a rule at each field, dotted names, strict reading and changing.

A misspelt name or a value of another type is never accepted, from the command line as little as from a file.
"""
import logging
from dataclasses import MISSING, asdict, field, fields, is_dataclass
from typing import Callable, NamedTuple

from ptm_mini.errors import LONGEST, InputError, nearest

logger = logging.getLogger(__name__)


class Rule(NamedTuple):
    """What values a setting can have."""
    holds: Callable               # of the value
    words: str                    # "expected ..."


ANY = Rule(lambda value: True, "")


def above(low, high):
    return Rule(lambda value: low < value <= high, f"more than {low}, at most {high}")


def between(low, high):
    return Rule(lambda value: low <= value <= high, f"{low} to {high}")


def one_of(names):
    return Rule(lambda value: value in names, f"one of {', '.join(names)}")


def setting(default, remark, rule=ANY, before=MISSING):
    """A field of a group of settings.

    remark  what it means, for readers and for `train.py --settings`
    rule    Rule that its values must keep
    before  for a setting that came later: the value that stands for what was done before it, which runs saved without
            it get. A setting that has none must be in every file
    """
    return field(default=default, metadata={"remark": remark, "rule": rule, "before": before})


def later(group):
    """A field for a group of settings that came later: what runs saved without it get is the group as it is by default."""
    return field(default=group, metadata={"before": group})


def leaves(group, prefix=""):
    """Yield (dotted key, value, field) for every setting in a group and the groups within it, in order."""
    for item in fields(group):
        value = getattr(group, item.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value, item


def keys(config):
    """All dotted keys of a config, such as train.prompts.epochs, in order."""
    return [key for key, _, _ in leaves(config)]


def get(config, key):
    """The value of a dotted key."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def shown(value):
    """A value as an error says it: on one line, and of what is long the beginning or the type"""
    if isinstance(value, str):
        return repr(value[:LONGEST])
    if value is None or isinstance(value, (bool, float)) or isinstance(value, int) and abs(value) < 2**63:
        return repr(value)
    return f"({type(value).__name__})"


def expect(good, config, key, expected):
    """Raise InputError unless `good`, naming the setting, its value and what was expected."""
    if not good:
        raise InputError(f"setting {key}={str(get(config, key))[:LONGEST]}: expected {expected}")


def check_rules(config):
    """Raise InputError for the first setting that breaks its own rule."""
    for key, value, item in leaves(config):
        rule = item.metadata["rule"]
        expect(rule.holds(value), config, key, rule.words)


def with_settings(config, changes):
    """A copy of `config` with {dotted key: value}; raises InputError for an unknown key or a value of a wrong type."""
    tree, known = asdict(config), keys(config)
    for key, value in changes.items():
        if key not in known:
            raise InputError(f"setting {key[:LONGEST]}: no such setting; {nearest(key, known)}")
        *path, name = key.split(".")
        branch = tree
        for step in path:
            branch = branch[step]
        branch[name] = value
    return from_dict(type(config), tree)


def with_assignments(config, assignments):
    """A copy of `config` with what the command line says, a list of "key=value"."""
    changes, known = {}, keys(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment[:LONGEST]}: expected KEY=VALUE, such as prompts.length=4")
        changes[key] = parse(text, get(config, key)) if key in known else text
    return with_settings(config, changes)


def parse(text, like):
    """Turn `text` from the command line into a value of the type of `like`; unchanged where it can't be."""
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return type(like)(text)
    except ValueError:
        return text


def from_dict(kind, tree, prefix="", say=logger.info):
    """Build the dataclass `kind` from nested dicts, strictly: no field besides its own, each of its type, and each there
    but for those that came later, which get what stands for the time before them, a line said for each."""
    if not isinstance(tree, dict):
        raise InputError(f"setting {prefix.rstrip('.') or '(all)'}={shown(tree)}: expected a group of settings")
    names = [item.name for item in fields(kind)]
    for name in tree:
        if name not in names:
            raise InputError(f"setting {prefix}{str(name)[:LONGEST]}: no such setting; {nearest(name, names)}")
    values = {}
    for item in fields(kind):
        key, value = prefix + item.name, tree.get(item.name, item.metadata.get("before", MISSING))
        if value is MISSING:
            raise InputError(f"setting {key} is missing: expected a value of type {item.type.__name__}")
        if item.name not in tree:
            before = "it is by default" if is_dataclass(value) else f"{value}, as it was before"
            say("setting %s came later: taken as %s", key, before)
        elif is_dataclass(item.type):
            value = from_dict(item.type, value, key + ".", say)
        elif type(value) is int and abs(value) >= 2**63:                  # beyond what a float or a message could take
            raise InputError(f"setting {key}: expected a number below 2^63")
        elif item.type is float and type(value) is int:
            value = float(value)
        elif type(value) is not item.type:
            raise InputError(f"setting {key}={shown(value)}: expected {item.type.__name__}, not {type(value).__name__}")
        values[item.name] = value
    return kind(**values)
