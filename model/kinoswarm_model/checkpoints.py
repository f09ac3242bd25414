"""Checkpoints on disk: safetensors of float32 weights. Owns reading, checking and atomic writing.

A file may come from a stranger: its header is bounded and compared with what is expected before any tensor is read.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from kinoswarm_model.atomic_file import write_atomically
from kinoswarm_protocol.errors import Code, LimitExceeded, LocalError, MalformedBytes, RemoteError
from kinoswarm_protocol.limits import MAX_SAFETENSORS_HEADER, MAX_TENSOR_RANK, MAX_TENSORS

Shapes = Mapping[str, tuple[int, ...]]
_LENGTH_BYTES = 8


class BadTensors(RemoteError):
    """Names, shapes or types of tensors are not those of this swarm's model."""

    code = Code.BAD_TENSORS


class NotFinite(RemoteError):
    """A tensor holds NaN or infinity."""

    code = Code.NOT_FINITE


def write_atomic(path: Path, raw: bytes) -> None:
    """Write a file so that `path` is either the old one or the whole new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, raw)


def header_of(raw: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every tensor that a safetensors file declares. Raises LimitExceeded or MalformedBytes."""
    length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
    if length > MAX_SAFETENSORS_HEADER:
        raise LimitExceeded(
            f"safetensors header of {length} bytes; at most {MAX_SAFETENSORS_HEADER}"
        )
    if length > len(raw) - _LENGTH_BYTES:
        raise MalformedBytes(f"safetensors header of {length} bytes in {len(raw)} bytes")
    try:
        header = json.loads(raw[_LENGTH_BYTES : _LENGTH_BYTES + length])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        found = {
            name: (str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
            for name, entry in entries.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MalformedBytes(f"safetensors header: {error}") from error
    _check_counts(found)
    return found


def decode_tensors(raw: bytes) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises MalformedBytes for anything that is not one, LimitExceeded if too many."""
    header_of(raw)
    try:
        tensors: dict[str, Tensor] = load(raw)
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError, OverflowError) as error:
        raise MalformedBytes(f"safetensors: {error}") from error
    return tensors


def encode_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Safetensors bytes; equal tensors give equal bytes."""
    whole = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    raw: bytes = save(whole, metadata)
    return raw


def check_shapes(tensors: Mapping[str, Tensor], expected: Shapes, what: str) -> None:
    """Raises BadTensors when names, shapes or float32 differ from the model's, NotFinite for NaN or infinity."""
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_names(found, expected, what)
    for name, tensor in tensors.items():
        if str(tensor.dtype) != "torch.float32":
            raise BadTensors(f"{what}: {name} is {tensor.dtype}, expected float32")
        if not bool(tensor.isfinite().all()):
            raise NotFinite(
                f"{what}: {name} holds NaN or infinity; train it again from the published base"
            )


def check_names(found: Shapes, expected: Shapes, what: str) -> None:
    """Raises BadTensors naming the first tensor that is missing, foreign or of another shape."""
    for name in sorted(set(found) ^ set(expected)):
        problem = "is missing" if name in expected else "does not belong to this model"
        raise BadTensors(f"{what}: tensor {name[:100]!r} {problem}")
    for name, shape in expected.items():
        if found[name] != shape:
            raise BadTensors(f"{what}: {name} has shape {found[name]}, expected {shape}")


def write_checkpoint(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as float32, atomically."""
    write_atomic(path, encode_tensors({name: tensor.float() for name, tensor in weights.items()}))


def read_checkpoint(path: Path, expected: Shapes) -> dict[str, Tensor]:
    """Weights of a checkpoint file, checked against the model's tensors.

    Raises LocalError when the file can't be read, MalformedBytes, LimitExceeded, BadTensors or NotFinite for its
    contents.
    """
    limit = _LENGTH_BYTES + MAX_SAFETENSORS_HEADER + 4 * _numbers(expected)
    try:
        size = path.stat().st_size
        if size > limit:
            raise LimitExceeded(f"{path.name}: {size} bytes; this model needs at most {limit}")
        raw = path.read_bytes()
    except OSError as error:
        raise LocalError(f"can't read checkpoint {path}: {error}") from error
    tensors = decode_tensors(raw)
    check_shapes(tensors, expected, path.name)
    return tensors


def mapped_checkpoint(path: Path, expected: Shapes, *, check_finite: bool) -> dict[str, Tensor]:
    """As read_checkpoint, but the weights stay in the file until they are used (copy on write).

    `check_finite` reads all of it once; leave it out for a file that was checked before.
    """
    check_names(declared_shapes(path), expected, path.name)
    weights = tensors_of(path, expected)
    if check_finite:
        check_shapes(weights, expected, path.name)
    return weights


def float_weights(path: Path, expected: Shapes) -> dict[str, Tensor]:
    """Weights that others trained, of whatever floating type, as float32. Raises as read_checkpoint."""
    check_names(declared_shapes(path), expected, path.name)
    weights = {name: tensor.float() for name, tensor in tensors_of(path, expected).items()}
    check_shapes(weights, expected, path.name)
    return weights


def declared_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """What a file's header says it holds. Raises LocalError, LimitExceeded or MalformedBytes."""
    try:
        with path.open("rb") as file:
            prefix = file.read(_LENGTH_BYTES)
            length = min(int.from_bytes(prefix, "little"), MAX_SAFETENSORS_HEADER + 1)
            found = header_of(prefix + file.read(length))
    except OSError as error:
        raise LocalError(f"can't read checkpoint {path}: {error}") from error
    return {name: shape for name, (_, shape) in found.items()}


def tensors_of(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """These tensors as mappings of the file (copy on write). Raises LocalError or MalformedBytes."""
    try:
        with safe_open(path, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in names}
    except OSError as error:
        raise LocalError(f"can't read checkpoint {path}: {error}") from error
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise MalformedBytes(f"{path.name}: safetensors: {error}") from error


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Detached CPU copies of a module's weights, as a checkpoint holds them."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def _numbers(shapes: Shapes) -> int:
    total = 0
    for shape in shapes.values():
        count = 1
        for size in shape:
            count *= size
        total += count
    return total


def _check_counts(found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    if len(found) > MAX_TENSORS:
        raise LimitExceeded(f"{len(found)} tensors in one file; at most {MAX_TENSORS}")
    for name, (_, shape) in found.items():
        if len(shape) > MAX_TENSOR_RANK:
            raise LimitExceeded(
                f"tensor {name[:100]!r} has {len(shape)} dimensions; at most {MAX_TENSOR_RANK}"
            )
