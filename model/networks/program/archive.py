"""Archives of torch.export (`*.pt2`) as data from anyone: judged, and copied without what torch would run or unpickle.

`torch.export.load` unpickles sample inputs, custom objects and some weights, parses symbolic expressions with sympy,
which evaluates them, and resolves names of functions. So `judge` reads the zip file with Python's own reader, checks
every entry that it knows, refuses the others, and writes a new archive from the checked ones. torch sees only that.
What trust remains is said in docs/reliability.md.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from model.errors import CheckpointError
from model.files.metadata import truncate_text
from model.networks.program.expressions import check_expression, is_symbol
from model.networks.program.operators import OPERATORS

__all__ = ["DESCRIPTION", "GOLDEN", "Archive", "add_extras", "is_archive", "judge"]

# Extra files of this project: description of the network as JSON, and labels of a drawn image as bytes.
DESCRIPTION = "dilated_context.json"
GOLDEN = "dilated_context_golden"
_ZIP = b"PK\x03\x04"
_MODEL = "models/model.json"
# Entries whose content is constant or unused.
_IGNORED = frozenset({".data/serialization_id", "data/sample_inputs/model.pt", ".data/version", ".format_version"})
_PAYLOADS = {
    "data/weights/model_weights_config.json": "data/weights/weight_",
    "data/constants/model_constants_config.json": "data/constants/tensor_",
}
# Errors of reading a file whose values have other types than those of torch.export.
_DAMAGE = (
    *(zipfile.BadZipFile, NotImplementedError, RecursionError, EOFError, OverflowError),
    *(AttributeError, IndexError, KeyError, TypeError, ValueError),
)
_LARGEST_JSON = 256 * 2**20  # bytes
_DEEPEST = 64  # levels of JSON
# Kinds of arguments that stand for code, objects or other graphs.
_REFUSED_ARGUMENTS = frozenset({"as_graph", "as_custom_obj", "as_operator", "as_string_to_argument"})
_TREES = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", None})


@dataclass(frozen=True)
class Archive:
    """Archive that was found harmless.

    Attributes:
        data: Archive for `torch.export.load`, without extra files.
        description: JSON object of the entry `DESCRIPTION`; None if there is none.
        golden: Content of the entry `GOLDEN`; None if there is none.
        torch_version: Version of torch that wrote the program.
    """

    data: bytes
    description: dict[str, Any] | None
    golden: bytes | None
    torch_version: str


def is_archive(data: bytes) -> bool:
    """Return whether the bytes are an archive of torch.export rather than another file."""
    if not data.startswith(_ZIP):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.split("/", 1)[-1] == "archive_format" for name in archive.namelist())
    except _DAMAGE:
        return False


def judge(data: bytes) -> Archive:
    """Check an archive, and return a copy that holds only what was checked.

    Args:
        data: Content of the file.

    Raises:
        CheckpointError: If an entry is unknown, would be unpickled, or names an operator, expression or argument that
            is not allowed; the message names it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = _entries(archive)
            text = entries.pop(f"extra/{DESCRIPTION}", None)
            golden = entries.pop(f"extra/{GOLDEN}", None)
            program = _program(entries)
            kept = {_MODEL: json.dumps(program).encode(), **_payloads(entries)}
    except _DAMAGE as error:
        raise CheckpointError(
            f"the archive cannot be read ({truncate_text(error)}): export the network again"
        ) from error
    if entries:
        raise CheckpointError(f"entry {min(entries)[:100]!r} of the archive is unknown, so it is not loaded")
    described = None if text is None else _json(text, DESCRIPTION)
    if described is not None and not isinstance(described, dict):
        raise CheckpointError(f"{DESCRIPTION} is a {type(described).__name__}, not an object")
    return Archive(_write(kept), described, golden, str(program.get("torch_version", ""))[:40])


def add_extras(data: bytes, description: Mapping[str, Any], golden: bytes) -> bytes:
    """Return an archive with this project's extra files; equal arguments give equal bytes.

    Args:
        data: `Archive.data`.
        description: Description of the network, JSON values.
        golden: Labels of the drawn image.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        kept = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    text = json.dumps(description, sort_keys=True, indent=1, ensure_ascii=False)
    return _write({**kept, f"extra/{DESCRIPTION}": text.encode(), f"extra/{GOLDEN}": golden})


def _entries(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Return the content of every entry by its name below the archive's only folder."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        raise CheckpointError("an entry of the archive stands there twice")
    if len({name.split("/", 1)[0] for name in names}) != 1 or not all("/" in name for name in names):
        raise CheckpointError("the archive has no folder of its own: it was not written by torch.export.save")
    if compressed := [info.filename for info in infos if info.compress_type != zipfile.ZIP_STORED]:
        raise CheckpointError(f"entry {compressed[0][:100]!r} is compressed, which torch.export never does")
    entries = {info.filename.split("/", 1)[1]: archive.read(info) for info in infos}
    for name in _IGNORED & entries.keys():
        del entries[name]
    wanted = {"archive_format": b"pt2", "byteorder": b"little"}
    for name, value in wanted.items():
        if entries.pop(name, value) != value:
            raise CheckpointError(f"{name} of the archive is not {value.decode()}: export the network again")
    if entries.pop("archive_version", b"0") != b"0":
        raise CheckpointError(f"the archive's version is unknown to torch {torch.__version__}: upgrade torch")
    return entries


def _json(data: bytes, name: str) -> Any:
    """Parse an entry of bounded size and depth."""
    if len(data) > _LARGEST_JSON:
        raise CheckpointError(f"{name} has {len(data)} bytes: at most {_LARGEST_JSON} are read")
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not JSON ({truncate_text(error)}): the archive is damaged") from error
    _check_depth(parsed, _DEEPEST, name)
    return parsed


def _check_depth(value: Any, levels: int, name: str) -> None:
    if levels == 0:
        raise CheckpointError(f"{name} is nested deeper than {_DEEPEST} levels")
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(child, levels - 1, name)


def _program(entries: dict[str, bytes]) -> dict[str, Any]:
    """Take the program out of the entries, check it, and drop what only describes where it came from."""
    if others := [name for name in entries if name.startswith("models/") and name != _MODEL]:
        raise CheckpointError(f"the archive holds another program, {others[0][:100]!r}: export one network alone")
    if _MODEL not in entries:
        raise CheckpointError("the archive holds no program: write it with torch.export.save")
    program: dict[str, Any] = _json(entries.pop(_MODEL), _MODEL)
    module = program["graph_module"]
    for node in module["graph"]["nodes"]:
        _check_operator(node["target"])
        # Stack traces and names of Python modules. torch resolves some of them.
        node["metadata"] = {}
    _check_values(program)
    for symbol in program["range_constraints"]:
        if not is_symbol(symbol):
            raise CheckpointError(f"the symbol {symbol[:60]!r} of the program is no symbol of torch.export")
    # Guards are Python code. The checks of input sizes come from the range constraints.
    program["guards_code"] = []
    module["module_call_graph"] = module["module_call_graph"][:1]
    for call in module["module_call_graph"]:
        signature = call["signature"] or {}
        for tree in ("in_spec", "out_spec"):
            _check_tree(json.loads(signature.get(tree) or "null"))
    module["metadata"] = {}
    return program


def _check_operator(target: str) -> None:
    """Refuse a function that is not on the list."""
    name = target.removeprefix("torch.ops.")
    parts = name.split(".")
    plain = ".".join(parts[:2]) if target.startswith("torch.ops.") else target
    if plain not in OPERATORS or not all(part.isidentifier() for part in parts):
        raise CheckpointError(
            f"the program calls {target[:100]!r}, which is not on the list of operators that are allowed: see "
            "docs/networks.md"
        )


def _check_values(program: Any) -> None:
    """Refuse arguments that stand for code or objects, and check every symbolic expression."""
    waiting = [program]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key, child in value.items():
                if key in _REFUSED_ARGUMENTS:
                    raise CheckpointError(f"the program has an argument {key!r}, which is not allowed")
                if key in ("custom_obj_values", "treespec_namedtuple_fields", "namespace") and child:
                    raise CheckpointError(f"the program has {key}, which are not allowed")
                if key == "expr_str":
                    check_expression(child)
                waiting.append(child)
        elif isinstance(value, list):
            waiting.extend(value)


def _check_tree(tree: Any) -> None:
    """Refuse a structure of inputs or outputs of other containers than tuples, lists and dicts."""
    if isinstance(tree, dict):
        if tree.get("type") not in _TREES:
            raise CheckpointError(f"the program has inputs or outputs of type {str(tree.get('type'))[:100]!r}")
        for child in tree.get("children_spec", ()):
            _check_tree(child)
    elif isinstance(tree, list):
        for child in tree:
            _check_tree(child)


def _payloads(entries: dict[str, bytes]) -> dict[str, bytes]:
    """Take weights and constants out of the entries, check their descriptions, and return them."""
    kept: dict[str, bytes] = {}
    for name, prefix in _PAYLOADS.items():
        if name not in entries:
            raise CheckpointError(f"the archive lacks {name}: export the network again with torch {torch.__version__}")
        data = entries.pop(name)
        folder = name.rsplit("/", 1)[0]
        used = set[str]()
        for tensor, payload in _json(data, name)["config"].items():
            path = f"{folder}/{payload['path_name']}"
            if payload["use_pickle"] or not path.startswith(prefix):
                raise CheckpointError(f"{tensor[:100]!r} of the archive would be unpickled, so it is not loaded")
            if path not in entries:
                raise CheckpointError(f"the archive lacks {path}: it is not whole")
            _check_tensor(tensor, payload["tensor_meta"], len(entries[path]))
            used.add(path)
        kept[name] = data
        kept |= {path: entries.pop(path) for path in used}
    return kept


# Bytes of an element, by the number of its type in the schema of torch.export.
_ELEMENT_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}


def _check_tensor(name: str, meta: Mapping[str, Any], size: int) -> None:
    """Refuse a tensor that reaches beyond its bytes, or is not a plain one of the CPU."""
    sizes, strides, offset = (
        [each["as_int"] for each in meta["sizes"]],
        [each["as_int"] for each in meta["strides"]],
        meta["storage_offset"]["as_int"],
    )
    whole = all(type(each) is int and each >= 0 for each in (*sizes, *strides, offset))
    if not whole or len(sizes) != len(strides) or meta["dtype"] not in _ELEMENT_BYTES:
        raise CheckpointError(f"{name[:100]!r} of the archive is no tensor that can be loaded")
    if meta["device"]["type"] != "cpu":
        raise CheckpointError(
            f"{name[:100]!r} lies on a {str(meta['device']['type'])[:20]}: export the network on a CPU"
        )
    last = offset + sum((length - 1) * stride for length, stride in zip(sizes, strides, strict=True))
    elements = 0 if 0 in sizes else last + 1
    if elements * _ELEMENT_BYTES[meta["dtype"]] > size:
        raise CheckpointError(f"{name[:100]!r} of the archive needs more than its {size} bytes: the file is damaged")


def _write(entries: Mapping[str, bytes]) -> bytes:
    """Write a new archive; equal entries give equal bytes."""
    sample = io.BytesIO()
    # torch expects sample inputs, and unpickles them: these are an empty tuple and an empty dict, written here.
    torch.save(((), {}), sample)
    every = {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        ".data/version": b"3\n",
        "data/sample_inputs/model.pt": sample.getvalue(),
        **entries,
    }
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(every):
            archive.writestr(zipfile.ZipInfo(f"program/{name}", (1980, 1, 1, 0, 0, 0)), every[name])
    return sink.getvalue()
