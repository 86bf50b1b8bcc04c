"""Which files of this environment make up the packages that somebody named, so that a box has these and no others."""

from __future__ import annotations

import csv
import json
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import TYPE_CHECKING

from gossamer.errors import ArgumentError, SandboxUnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from importlib import metadata

    from packaging.requirements import Requirement

__all__ = ["files_of", "modules_of"]

_OLD_NAMESPACE = (b"extend_path(", b"declare_namespace(")


def files_of(packages: Sequence[str]) -> Mapping[str, Path]:
    """Find what packages and all that they depend on consist of, in the environment that this process runs in.

    They are found by what is written about them there, and nothing is imported. What they have outside of site-packages,
    as commands and manuals, is left out, and so are `.pth` files. A folder that several packages share, as `google`, is
    not given as a whole, unless it is wholly of those asked for, but by what is in it.

    It reads files and takes some milliseconds a package, so it belongs into a thread.

    Args:
        packages: names of packages as `pip install` takes them: `numpy`, `pandas[excel]`, `scipy>=1.14`.

    Returns:
        Where each file or folder is, by its path below site-packages, such as `numpy`, `numpy.libs`,
        `numpy-2.4.0.dist-info`, `six.py` or `google/auth`.

    Raises:
        ArgumentError: a package or something that it needs is not there, or is not wholly in site-packages: installed
            editable, as an egg, by the system's packager, or as links. The message names it and says what to do.
        SandboxUnavailableError: the library that reads such names is not there.
    """
    recorded: dict[Path, list[str]] = {}
    for name, package in _with_dependencies(packages).items():
        recorded.setdefault(_site_of(name, package), []).extend(_recorded(name, package))
    sites = {site: _grouped(paths).keys() for site, paths in recorded.items()}
    found: dict[str, Path] = {}
    for site, paths in recorded.items():
        elsewhere = {name for other, names in sites.items() if other != site for name in names}
        for path in _parts(site, paths, elsewhere):
            found.setdefault(path, site / path)
    for path, place in found.items():
        _check(path, place)
    return dict(sorted(found.items()))


def modules_of(packages: Sequence[str]) -> tuple[str, ...]:
    """Name the modules that packages are imported by; not those of what they depend on.

    Names that begin with an underscore are left out: those who need such modules import them. Of a folder that packages
    share the modules in it are named, as `google.auth`.

    Args:
        packages: as in `files_of`.

    Returns:
        The modules, by name.

    Raises:
        ArgumentError: as in `files_of`.
        SandboxUnavailableError: the same.
    """
    modules: set[str] = set()
    for requirement in _parsed(packages):
        package = _installed(requirement)
        site, recorded = _site_of(requirement.name, package), _recorded(requirement.name, package)
        modules.update(_modules(site, recorded))
    return tuple(sorted(modules))


# --- which packages -------------------------------------------------------------------------------------------------


def _parsed(packages: Sequence[str]) -> list[Requirement]:
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError as error:
        raise SandboxUnavailableError(
            f"packaging cannot be imported ({error}), which reads names of packages; pip install 'gossamer[sandbox]'"
        ) from error
    if isinstance(packages, str):
        raise ArgumentError(f"packages must be a list of names, not {packages!r}; write [{packages!r}]")
    parsed: list[Requirement] = []
    for one in packages:
        try:
            requirement = Requirement(one)
        except (InvalidRequirement, TypeError) as error:
            raise ArgumentError(
                f"packages: {one!r} is no name of a package; write it as pip takes it"
            ) from error
        if requirement.url or requirement.marker:
            raise ArgumentError(f"packages: {one!r} must be a name, without an address or a condition")
        parsed.append(requirement)
    return parsed


def _installed(requirement: Requirement) -> metadata.Distribution:
    """Find a package that somebody named, and hold it against what they wrote."""
    from importlib import metadata

    from packaging.utils import canonicalize_name

    name = requirement.name
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ArgumentError(f"no package {name!r} in this environment; {_advice(name)}") from None
    if requirement.specifier and not requirement.specifier.contains(package.version, prereleases=True):
        raise ArgumentError(
            f"{name} {package.version} is installed, which is not {requirement}; pip install '{requirement}'"
        )
    if not requirement.extras:
        return package
    offered = {canonicalize_name(one) for one in package.metadata.get_all("Provides-Extra") or ()}
    for extra in sorted(requirement.extras):
        if canonicalize_name(extra) not in offered:
            has = f"it has {', '.join(sorted(offered))}" if offered else "it has none"
            raise ArgumentError(f"{name} {package.version} has no extra {extra!r}; {has}")
    return package


def _with_dependencies(packages: Sequence[str]) -> dict[str, metadata.Distribution]:
    """Find packages and what they need, and that in turn, each once, by their names."""
    waiting = [(requirement, "") for requirement in _parsed(packages)]
    for requirement, _ in waiting:
        _installed(requirement)
    from importlib import metadata

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, needed_by = waiting.pop()
        name = canonicalize_name(requirement.name)
        # Without an extra there are the dependencies that everybody has; with some, those of each beside them.
        extras = {(name, canonicalize_name(extra)) for extra in requirement.extras} | {(name, "")}
        extras -= seen
        if not extras:
            continue
        seen |= extras
        package = found.get(name)
        if package is None:
            try:
                package = found[name] = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                raise ArgumentError(
                    f"{needed_by} needs {requirement.name}, which is not in this environment; "
                    f"pip install '{needed_by}'"
                ) from None
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for _, extra in extras):
                asked = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
                waiting.append((needed, f"{requirement.name}{asked}"))
    return found


def _advice(name: str) -> str:
    """Say how somebody gets a package that is not there, or what they may have meant."""
    from difflib import get_close_matches
    from importlib import metadata

    known = metadata.packages_distributions()
    if name in known:
        return f"the module {name} is of {' and '.join(sorted(set(known[name])))}: name that"
    names = {one for several in known.values() for one in several}
    near = get_close_matches(name.lower(), [one.lower() for one in names], n=3, cutoff=0.75)
    return f"pip install {name}" + (f"; or did you mean {' or '.join(near)}?" if near else "")


# --- which files ----------------------------------------------------------------------------------------------------


def _site_of(name: str, package: metadata.Distribution) -> Path:
    """Tell the folder in which a package is installed, and that it is there as a whole."""
    site = Path(str(package.locate_file("")))
    if package.read_text("RECORD") is None or not site.is_dir():
        raise ArgumentError(
            f"nobody knows which files are those of {name}: it was installed as an egg or by the system's packager; "
            f"install it into a virtual environment: pip install {name}"
        )
    return site


def _recorded(name: str, package: metadata.Distribution) -> list[str]:
    """Give the paths of a package's files below site-packages."""
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    rows = csv.reader((package.read_text("RECORD") or "").splitlines())
    paths = [row[0] for row in rows if row]
    editable = origin.get("dir_info", {}).get("editable") or any("__editable__" in path for path in paths)
    if editable:
        source = origin.get("url", "its source").removeprefix("file://")
        raise ArgumentError(
            f"{name} is installed editable, so its files are in {source} and not in site-packages; "
            f"install it as it is meant to be used: pip install {source}"
        )
    return [path for path in paths if _is_inside(path)]


def _is_inside(path: str) -> bool:
    """Tell whether something is below site-packages, of this package alone, and nothing that runs at every start."""
    folders = path.split("/")
    if len(folders) == 1:
        return not path.endswith(".pth")
    return ".." not in folders and folders[0] not in {"", "__pycache__"}


def _parts(folder: Path, recorded: Iterable[str], apart: Collection[str], path: str = "") -> list[str]:
    """Give paths that cover what is recorded below a folder and nothing else, as few as can be.

    Args:
        folder: the folder.
        recorded: paths of files below it.
        apart: folders that are in another site-packages too, and never given as a whole.
        path: what stands before its own paths.
    """
    parts: list[str] = []
    for name, inside in _grouped(recorded).items():
        place = folder / name
        if _is_shared(place, inside):
            children = _grouped(inside).keys()
            finer = _parts(place, inside, children if name in apart else (), f"{path}{name}/")
            others = {one.name for one in place.iterdir()} - {"__pycache__", *children}
            if others or name in apart or finer != [f"{path}{name}/{child}" for child in children]:
                parts += finer
                continue
        parts.append(f"{path}{name}")
    return parts


def _grouped(recorded: Iterable[str]) -> dict[str, list[str]]:
    """Give what is in each folder; a file has nothing in it."""
    grouped: dict[str, list[str]] = {}
    for path in recorded:
        name, _, rest = path.partition("/")
        if name != "__pycache__":
            inside = grouped.setdefault(name, [])
            if rest:
                inside.append(rest)
    return grouped


def _is_shared(folder: Path, inside: Collection[str]) -> bool:
    """Tell whether several packages may have put something into a folder: it is a namespace, of the new kind or the old."""
    if not inside or not folder.name.isidentifier():
        return False  # a file, a `.dist-info` or a `.libs`
    try:
        if "__init__.py" not in inside:
            return folder.is_dir() and not any(path.startswith("__init__.") for path in inside)
        with (folder / "__init__.py").open("rb") as file:
            beginning = file.read(4096)
    except OSError:  # it is gone, which is told where all is looked at
        return False
    return any(sign in beginning for sign in _OLD_NAMESPACE)


def _modules(folder: Path, recorded: Iterable[str], path: str = "") -> Iterator[str]:
    for name, inside in _grouped(recorded).items():
        if not inside:
            # In a namespace files are left out: it may be a folder of tests or examples just as well.
            stem = name.partition(".")[0]
            if not path and name.removeprefix(stem) in all_suffixes() and _is_public(stem):
                yield stem
        elif _is_public(name):
            below = (
                [*_modules(folder / name, inside, f"{path}{name}.")]
                if _is_shared(folder / name, inside)
                else []
            )
            yield from below
            if not below and any(one.startswith("__init__.") for one in inside):
                yield f"{path}{name}"


def _is_public(name: str) -> bool:
    return name.isidentifier() and not name.startswith("_")


def _check(path: str, place: Path) -> None:
    """Refuse what could not be shown in a box: what is gone, and what leads elsewhere."""
    if not place.exists():
        raise ArgumentError(
            f"{path} is gone from {place.parent}, though a package there has it; "
            "install that package anew: pip install --force-reinstall"
        )
    if (place / "__init__.py").is_symlink():
        raise ArgumentError(
            f"{place} is made of links to files elsewhere; install it as copies (uv pip install --link-mode=copy)"
        )
