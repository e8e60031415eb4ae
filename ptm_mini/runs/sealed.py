"""A JSON file that says its own SHA-256, so that no change goes unseen; read with a bound on its size."""
import hashlib
import json

from ptm_mini.errors import InputError

MOST_BYTES = 10_000_000           # ours have some thousand


def sealed(facts):
    """A dict as the bytes of such a file."""
    return (json.dumps({**facts, "sha256": digest_of(facts)}, indent=1) + "\n").encode()


def read_sealed(path):
    """The dict in such a file; raises InputError where it can't be read or is not as it was written."""
    try:
        facts = read_json(path)
        saved = facts.pop("sha256")
        if saved == digest_of(facts):
            return facts
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a run folder that train.py made") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); expected a run folder that train.py made") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):       # not JSON, or not an object with that key
        pass
    raise InputError(f"{path}: was altered after it was saved; restore it, or train again for other settings")


def read_json(path):
    with open(path, "rb") as file:
        return json.loads(file.read(MOST_BYTES))


def digest_of(facts):
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def sha256_of(path):
    """SHA-256 of a file, read in parts"""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
