"""Checkpoints and classes of other libraries.

    model = runnel.interop.load("folder")            # config.json and safetensors, as transformers writes them
    runnel.interop.save(model, "other", like="folder")

What `load` returns is an ordinary Model: every decoder, drafter and state file works with it. The families that can be
read are the pages of `runnel.interop.families`. `import_run` and `export_run` also take the tokenizer along. The
name of a repository of the Hugging Face Hub in place of a folder is fetched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from runnel import catalog, codecs
from runnel.codecs import Codec, tokenizer
from runnel.interop import folder as folders
from runnel.interop.tables import Joined
from runnel.model import Model, ModelConfig, own_tensors
from runnel.model import load as load_run
from runnel.model import save as save_run
from runnel.unfilled import Unfilled

FAMILIES = "interop/families"
ORIGIN = "origin"
"""Where an imported run keeps what came with its tensors."""
HEAD = "lm_head.weight"
BESIDE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json",
)  # fmt: skip
"""What goes along with the tensors. Nothing else is taken: no code."""


class Run(NamedTuple):
    model: Model
    codec: Codec | None


def import_run(folder: str | Path, out: str | Path) -> Run:
    """Write a checkpoint as a run of Runnel: the model, its codec, and what `export_run` needs to write it back."""
    folder, out = fetched(folder), Path(out)
    _check_apart(folder, out)
    model = load(folder)
    codec = read_codec(folder, model)
    save_run(model, out)
    if codec is not None:
        codec.save(out)
    _copy_beside(folder, out / ORIGIN)
    return Run(model, codec)


def export_run(run: str | Path, out: str | Path) -> None:
    """Write an imported run as the checkpoint that it came from, with the weights of today."""
    source = Path(run) / ORIGIN
    if not source.is_dir():
        raise ValueError(f"{run} must be a run that `runnel import` made; it has no folder {ORIGIN!r}")
    _check_apart(Path(run), Path(out))
    save(load_run(run), out, like=run)
    _copy_beside(source, Path(out))


def read_codec(folder: str | Path, model: Model) -> Codec | None:
    """The tokenizer of a checkpoint, None when it has none. ValueError where it does not fit the model."""
    path = Path(folder)
    if (path / "codec.json").is_file():
        return codecs.load(path)
    return tokenizer.from_folder(path, model.config.outcomes) if (path / "tokenizer.json").is_file() else None


def _check_apart(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        raise ValueError(f"what is made of {source} must go to another folder; got the same")


def _copy_beside(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in BESIDE:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def load(folder: str | Path, dtype: torch.dtype | None = None) -> Model:
    """The model of a folder in the Hugging Face layout. dtype: of its weights; as they are when left out.

    Weights that the files have alike are views of them: the folder must stay as it is while the model is used.
    ValueError when something is missing, damaged, of another shape or not supported; FileNotFoundError without files.
    """
    path = fetched(folder)
    config = folders.read_config(path)
    family = family_of(config)
    theirs = complete(family, config)
    model = shapes(family.model_config(theirs))
    stored = _named(folders.open_tensors(path), family)
    ours, used, modules = own_tensors(model), set(), dict(model.named_modules())
    for entry in family.table(theirs):
        parts = []
        for name, shape in zip(entry.their_names, entry.required([ours[n] for n in entry.our_names]), strict=True):
            if name not in stored:
                raise ValueError(f"{path} lacks the tensor {name}, of shape {shape}")
            if stored[name].shape != shape:
                raise ValueError(f"{name} of {path} must be {shape}; got {stored[name].shape}")
            parts.append(stored[name])
            used.add(name)
        apart = isinstance(entry.how, Joined)
        made = [folders.joined(parts)] if apart else entry.how.ours([part.read() for part in parts])
        for name, tensor in zip(entry.our_names, made, strict=True):
            owner, _, leaf = name.rpartition(".")
            _place(modules[owner], leaf, tensor.to(dtype or tensor.dtype).contiguous())
            del ours[name]
        for part in parts:
            part.release()
    assert not ours, f"the table of {config['model_type']} leaves out {sorted(ours)}"
    _check_rest(path, set(stored) - used, family)
    if model.config.frame.tied:
        model.tie()
    return model


def shapes(config: ModelConfig) -> Model:
    """A model without numbers, on the meta device."""
    with torch.device("meta"), Unfilled():
        return Model(config)


def fetched(folder: str | Path) -> Path:
    """The folder; of what is none but may be the name of a repository, OWNER/NAME, the copy that the Hub gives."""
    path = Path(folder)
    if path.is_dir() or len(path.parts) != 2 or path.is_absolute():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        for tensors in ("model*.safetensors", "pytorch_model*.bin"):  # the second where there are none of the first
            found = Path(snapshot_download(str(folder), allow_patterns=[tensors, "*.index.json", *BESIDE]))
            if any(found.glob(tensors)):
                break
        return found
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"{folder} is no folder, and the Hub does not give it: {reason}") from error


def save(model: Model, folder: str | Path, like: str | Path) -> None:
    """Write a model as the folder `like` is laid out: one in the Hugging Face layout, or a run that was imported.

    ValueError when the model is not what that folder's config.json describes.
    """
    folders.write(Path(folder), _config_of(like), theirs_of(model, described(model, like)))


def described(model: Model, like: str | Path) -> dict[str, Any]:
    """The completed config.json of a folder that describes a model. ValueError when it describes another."""
    config = _config_of(like)
    family = family_of(config)
    theirs = complete(family, config)
    wanted, found = family.model_config(theirs), model.config
    if (wanted.pattern, wanted.d_model, wanted.frame) != (found.pattern, found.d_model, found.frame):
        raise ValueError(
            f"the model must be the one that {like} describes, {wanted.pattern!r} of width {wanted.d_model}; "
            f"got {found.pattern!r} of width {found.d_model}"
        )
    return theirs


def theirs_of(model: Model, theirs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Their tensors of a model, by name."""
    family = supported()[theirs["model_type"]]
    for entry in family.table(theirs):
        ours = [model.get_parameter(name).detach() for name in entry.our_names]
        yield from zip(entry.their_names, entry.how.theirs(ours), strict=True)
    for name, tensor in getattr(family, "constants", _no_constants)(theirs):
        yield name, tensor.to(model.norm.weight.dtype)


def _no_constants(theirs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    return iter(())


def _config_of(like: str | Path) -> dict[str, Any]:
    source = Path(like) / ORIGIN
    return folders.read_config(source if source.is_dir() else Path(like))


def family_of(config: dict[str, Any]) -> ModuleType:
    """The page that reads a config.json. ValueError that names the nearest model_type when there is none."""
    known = supported()
    kind = config["model_type"]
    if kind not in known:
        raise ValueError(
            f"model_type {kind!r} is not supported{catalog.suggest(kind, tuple(known))}; "
            f"supported are {', '.join(sorted(known))}"
        )
    return known[kind]


def supported() -> dict[str, ModuleType]:
    """The page of every model_type."""
    pages = [catalog.page(FAMILIES, name) for name in catalog.names(FAMILIES)]
    return {kind: page for page in pages for kind in page.MODEL_TYPES}


def complete(family: ModuleType, config: dict[str, Any]) -> dict[str, Any]:
    """A config.json with what it left out. ValueError when a field without a default is missing."""
    theirs = {"tie_word_embeddings": False, **family.DEFAULTS, **config}
    for own, common in getattr(family, "ALIASES", {}).items():
        theirs[common] = theirs[own]
    for field in ("vocab_size", "hidden_size", "num_hidden_layers"):
        if not isinstance(theirs.get(field), int) or theirs[field] < 1:
            raise ValueError(
                f"{field} of a {config['model_type']} must be a positive number; got {theirs.get(field)!r}"
            )
    return theirs


def _named(stored: dict[str, Any], family: ModuleType) -> dict[str, Any]:
    """Tensors under the names of a whole checkpoint, also where a folder left out their prefix."""
    if not family.PREFIX or any(name.startswith(family.PREFIX) for name in stored):
        return stored
    return {name if name == HEAD else family.PREFIX + name: tensor for name, tensor in stored.items()}


def _check_rest(path: Path, names: set[str], family: ModuleType) -> None:
    rest = sorted(name for name in names if not name.endswith((*family.IGNORED, HEAD)))
    if rest:
        raise ValueError(f"{path} has {len(rest)} tensors that its model_type does not: {', '.join(rest[:3])}")


def _place(module: nn.Module, leaf: str, tensor: Tensor) -> None:
    """Put a tensor where a module has a parameter of this name, and keep how the optimiser treats it."""
    made = nn.Parameter(tensor)
    made.__dict__.update(getattr(module, leaf).__dict__)
    setattr(module, leaf, made)
