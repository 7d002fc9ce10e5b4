"""From a model's name to a verified local ``.onnx`` and its record.

A name is looked for in this order: an explicit path; the weights bundled with the package; the
cache; the registries of ``TRANSIENTNET_REGISTRY``. The first that knows it is taken, so a run never
changes its model by itself, and needs the network only for what was never fetched: `pull` asks a
registry anew.
"""

from __future__ import annotations

import difflib
import os
import warnings
from pathlib import Path
from typing import NamedTuple

from ...errors import ModelIntegrityError, ModelNotFoundError, ModelUnavailableError, UsageError
from ...settings import get_settings
from ..record import ModelRecord
from .cache import Cache, Entry
from .fetch import Location
from .manifest import (
    Manifest,
    bundled_folder,
    bundled_manifest,
    check_bytes,
    check_model,
    read_metadata,
    split_reference,
)

__all__ = [
    "DeprecatedModelWarning",
    "Found",
    "RegistryWarning",
    "find",
    "list_models",
    "local_models",
    "pull",
    "remove",
    "resolve",
    "verified_files",
]


class DeprecatedModelWarning(UserWarning):
    """The model has a successor."""


class RegistryWarning(UserWarning):
    """A registry could not be asked; what it holds is not known."""


class Found(NamedTuple):
    """A record, and where its files come from.

    `location` is the registry, None for the bundled weights; `path` is a lone ``.onnx``.
    """

    record: ModelRecord
    location: Location | None = None
    path: Path | None = None


def list_models(*, offline: bool | None = None) -> list[ModelRecord]:
    """Every model that can be named: bundled, cached, and in the registries of the environment.

    Parameters
    ----------
    offline : bool, optional
        Open no connection; by default as ``TRANSIENTNET_OFFLINE`` and ``HF_HUB_OFFLINE`` ask for.
        Otherwise a registry is asked if it was never fetched before.

    Returns
    -------
    list of ModelRecord
        One per version, the bundled ones first.

    Raises
    ------
    ContractError
        If a manifest is malformed.

    Warns
    -----
    RegistryWarning
        For each registry that does not answer; its models are left out.

    Examples
    --------
    >>> from transientnet import list_models
    >>> models = {record.name: record for record in list_models(offline=True)}
    >>> models["realbogus"].classes
    ('bogus', 'real')
    """
    settings = get_settings()
    cache = Cache(settings.cache_dir)
    manifests = [Manifest.read(bundled_manifest())]
    manifests += [entry.manifest for entry in _known(cache)]
    for address in map(_canonical, settings.registries):
        if cache.entry(address) is None:
            try:
                manifests.append(_ask(cache, address, _offline(offline)).manifest)
            except ModelUnavailableError as error:
                warnings.warn(f"left out a registry: {error}", RegistryWarning, stacklevel=2)
    found: dict[str, ModelRecord] = {}
    for manifest in manifests:
        for record in manifest.records:
            found.setdefault(record.id, record)
    return list(found.values())


def resolve(name_or_path: str | Path, *, offline: bool | None = None) -> tuple[Path, ModelRecord]:
    """Find a model's file and record, and verify one against the other.

    Parameters
    ----------
    name_or_path : str or Path
        ``name``, ``name@1``, ``name@1.2.0``; a path to an ``.onnx``, or to a folder with a
        manifest; ``hf://org/repo[@revision]``, ``https://…/weights_manifest.json``, ``doi:10.…``.
        Folders and addresses take ``#name[@version]`` where they hold more than one model.
    offline : bool, optional
        Open no connection; by default as ``TRANSIENTNET_OFFLINE`` and ``HF_HUB_OFFLINE`` ask for.

    Returns
    -------
    path : Path
    record : ModelRecord

    Raises
    ------
    ModelNotFoundError, ModelUnavailableError, ModelIntegrityError, ContractError
    """
    found = find(name_or_path, offline=offline)
    record = found.record
    path = _file(found, _offline(offline))
    if record.status == "deprecated":
        advice = f"; use {record.successor} instead" if record.successor else ""
        warnings.warn(f"the model {record.id} is deprecated{advice}", DeprecatedModelWarning, stacklevel=2)
    return path, record


def find(name_or_path: str | Path, *, offline: bool | None = None) -> Found:
    """Find a model's record without fetching or verifying its weight file; see `resolve`."""
    text = str(name_or_path)
    if text.endswith(".onnx") and "://" not in text:
        path = Path(os.path.expanduser(text))
        if not path.is_file():
            raise ModelNotFoundError(f"no model file at {path}")
        return Found(read_metadata(path), None, path)
    settings = get_settings()
    cache = Cache(settings.cache_dir)
    address, _, wanted = text.partition("#")
    if _is_address(text) or (isinstance(name_or_path, Path) and name_or_path.is_dir()):
        return _find_at(cache, _canonical(address), wanted, _offline(offline))
    name, version = _split(text)
    bundled = Manifest.read(bundled_manifest())
    if record := bundled.select(name, version):
        return Found(record)
    known = set(bundled.names)
    unreachable = []
    places: list[Entry | str] = [*_known(cache), *map(_canonical, settings.registries)]
    for look in places:
        try:
            entry = look if isinstance(look, Entry) else _ask(cache, look, _offline(offline))
        except ModelUnavailableError as error:
            unreachable.append(str(error))
            continue
        known.update(entry.manifest.names)
        if record := entry.manifest.select(name, version):
            return Found(record, entry.pinned)
    raise _not_found(text, known, unreachable)


def pull(name: str, *, offline: bool | None = None) -> list[tuple[ModelRecord, Path]]:
    """Ask a model's registry anew, and bring its weight file and test vectors to the cache.

    Parameters
    ----------
    name : str
        As in `resolve`; an address without ``#name`` pulls every model there. What is bundled is
        verified, and needs no registry.
    offline : bool, optional

    Returns
    -------
    list of (ModelRecord, Path)

    Raises
    ------
    ModelNotFoundError, ModelUnavailableError, ModelIntegrityError, ContractError
    """
    settings = get_settings()
    cache = Cache(settings.cache_dir)
    address, _, wanted = name.partition("#")
    if _is_address(name):
        addresses = [_canonical(address)]
    else:
        addresses, wanted = [_canonical(address) for address in settings.registries], name
        if Manifest.read(bundled_manifest()).select(*_split(name)):
            path, record = resolve(name)
            return [(record, path)]
    known: set[str] = set()
    unreachable = []
    for address in addresses:
        try:
            if _offline(offline) and Location.parse(address).kind != "folder":
                raise _offline_error(f"cannot pull from {address}")
            entry = cache.refresh(address)
        except ModelUnavailableError as error:
            if len(addresses) == 1 or isinstance(error, ModelIntegrityError):
                raise
            unreachable.append(str(error))
            continue
        known.update(entry.manifest.names)
        record_found = entry.manifest.select(*_split(wanted)) if wanted else None
        chosen = entry.manifest.records if not wanted else (record_found,) if record_found else ()
        if chosen or not wanted:
            pulled = [(record, cache.fetch_model(record, entry.pinned)) for record in chosen]
            for record in chosen:
                cache.fetch_vectors(record, entry.pinned)
            return pulled
    raise _not_found(name, known, unreachable)


def local_models() -> list[Found]:
    """Every model whose weight file is on this machine: bundled, cached, and in folders."""
    settings = get_settings()
    cache = Cache(settings.cache_dir)
    found = [Found(record) for record in Manifest.read(bundled_manifest()).records]
    entries = _known(cache)
    for address in map(_canonical, settings.registries):
        if Location.parse(address).kind == "folder" and cache.entry(address) is None:
            entries.append(_ask(cache, address, True))
    for entry in entries:
        found += [
            Found(record, entry.pinned)
            for record in entry.manifest.records
            if entry.pinned.kind == "folder" or cache.model(record).is_file()
        ]
    return found


def verified_files(found: Found) -> tuple[Path, Path | None]:
    """A model's weight file and its test vectors (None where it has none), both verified.

    Nothing is fetched.

    Raises
    ------
    ModelUnavailableError, ModelIntegrityError, ContractError
    """
    path = _file(found, offline=True)
    row = found.record.test_vectors
    if not row:
        return path, None
    cached = Cache(get_settings().cache_dir).vectors(found.record)
    if found.location is None:
        vectors = path.with_name(row["file"])
    elif found.location.kind == "folder" and not cached.is_file():
        vectors = Path(found.location.base) / row["file"]
    else:
        vectors = cached
    check_bytes(vectors, row["sha256"], row["size_bytes"])
    return path, vectors


def remove(name: str) -> list[Path]:
    """Delete a fetched model from the cache; gives the files that were there.

    Raises
    ------
    UsageError
        For the bundled weights and for files outside of the cache.
    """
    found = find(name, offline=True)
    cache = Cache(get_settings().cache_dir)
    if found.location is None or not cache.model(found.record).is_file():
        raise UsageError(f"{found.record.id} is not in the cache {cache.folder}: nothing to remove")
    return cache.remove(found.record)


def _offline(offline: bool | None) -> bool:
    return get_settings().offline if offline is None else offline


def _is_address(text: str) -> bool:
    """Whether a text names a registry (also as ``registry#model``) and not a model."""
    return text.startswith(("doi:", ".", "~")) or text.endswith(".json") or not set("#/\\").isdisjoint(text)


def _offline_error(what: str) -> ModelUnavailableError:
    cache = get_settings().cache_dir
    return ModelUnavailableError(
        f"{what}: offline was asked for, so no connection was opened: run `transientnet models pull` where "
        f"there is a network and carry the cache {cache} over, or allow the network"
    )


def _canonical(address: str) -> str:
    """One spelling per registry: the cache files it under that."""
    return str(Location.parse(address))


def _split(text: str) -> tuple[str, str]:
    reference = split_reference(text)
    if reference is None:
        raise ModelNotFoundError(
            f"{text!r} is not the name of a model: write name, name@1.2.0, folder#name, file.onnx, hf://… or https://…"
        )
    return reference


def _known(cache: Cache) -> list[Entry]:
    """Registries in the cache: those of the environment first, in its order."""
    order = [_canonical(address) for address in get_settings().registries]
    return sorted(
        cache.entries(),
        key=lambda entry: order.index(entry.address) if entry.address in order else len(order),
    )


def _ask(cache: Cache, address: str, offline: bool) -> Entry:
    """A registry as it is now; folders are read in place."""
    location = Location.parse(address)
    if location.kind == "folder":
        return Entry(address, location, Manifest.read(Path(location.base) / location.manifest))
    if offline:
        raise _offline_error(f"the registry {address} is not in the cache")
    return cache.refresh(address)


def _find_at(cache: Cache, address: str, wanted: str, offline: bool) -> Found:
    """A record of one registry: as cached, or, if it is not there, as the registry has it now."""
    reference = _split(wanted)
    entry = cache.entry(address) if Location.parse(address).kind != "folder" else None
    if entry is None or entry.manifest.select(*reference) is None:
        entry = _ask(cache, address, offline)
    if record := entry.manifest.select(*reference):
        return Found(record, entry.pinned)
    names = ", ".join(entry.manifest.names) or "nothing"
    if not wanted:
        raise UsageError(f"{address} holds {names}: choose one with {address}#name")
    raise ModelNotFoundError(f"{address} has no model {wanted!r}; it holds {names}")


def _file(found: Found, offline: bool) -> Path:
    """The verified weight file of a record, fetched where that is needed and allowed."""
    record, location = found.record, found.location
    if found.path is not None:
        return found.path
    if location is None:
        path = bundled_folder() / record.file
        check_model(path, record)
        return path
    cache = Cache(get_settings().cache_dir)
    path = cache.model(record)
    if location.kind == "folder" and not path.is_file():
        path = Path(location.base) / record.file
        check_model(path, record)
    elif not offline:
        cache.fetch_model(record, location)
    elif path.is_file():
        check_model(path, record)
    else:
        raise _offline_error(f"{record.id} of {location} is not in the cache")
    return path


def _not_found(text: str, known: set[str], unreachable: list[str]) -> ModelUnavailableError:
    near = difflib.get_close_matches(text.partition("@")[0], known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    listed = f"no model {text!r}; known models: {', '.join(sorted(known)) or 'none'}{hint}"
    if Path(text).is_dir():
        listed += f"; for the registry in the folder of that name write ./{text}"
    if unreachable:
        return ModelUnavailableError(f"{listed}; without an answer: {'; '.join(unreachable)}")
    if not get_settings().registries:
        listed += "; more come from registries that TRANSIENTNET_REGISTRY names"
    return ModelNotFoundError(listed)
