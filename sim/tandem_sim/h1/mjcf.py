"""Reads an MJCF file that is not trusted, and gives MuJoCo only what a robot's body needs of it.

Bodies, joints, inertias, shapes, materials and mesh files near the file are kept; drives, sensors, keyframes, lights,
cameras, floors and options are dropped. What could reach further than that is refused: includes, attached models,
plugins, elements that multiply others. Sizes are bounded.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco

from tandem_datasets.errors import TandemError

MAX_XML = 4 << 20  # bytes
MAX_MESH = 32 << 20  # bytes of one mesh file
MAX_MESHES = 128 << 20  # bytes of all of them
MAX_ELEMENTS = 20_000
MAX_DEPTH = 100
MESH_TYPES = (".stl", ".obj", ".msh")

_KEPT_SECTIONS = ("compiler", "default", "asset", "worldbody")
_KEPT_ASSETS = ("mesh", "material")
_REFUSED = ("include", "plugin", "extension", "attach", "model", "replicate", "composite", "flexcomp", "skin")
_DROPPED = ("light", "camera", "site")
_DROPPED_GEOMS = ("plane", "hfield", "sdf")


def compile_body(path: Path, where: str) -> mujoco.MjModel:
    """The compiled body of the robot in the file ``path``: no drives, no sensors, nothing that collides.

    Raises:
        TandemError: the file cannot be read, holds what is refused, lacks a mesh, or MuJoCo refuses it.
    """
    root = _parse(path, where)
    _check(root, where)
    for section in list(root):
        if section.tag not in _KEPT_SECTIONS:
            root.remove(section)
    _prune(root)
    assets = _take_meshes(root, path, where)
    try:
        spec = mujoco.MjSpec.from_string(ET.tostring(root, encoding="unicode"), assets=assets)
        for geom in spec.geoms:
            geom.contype = geom.conaffinity = 0
        return spec.compile()
    except (ValueError, RuntimeError) as error:
        raise TandemError(f"{where}: MuJoCo refuses it: {_one_line(error)}") from error


def _parse(path: Path, where: str) -> ET.Element:
    try:
        content = _read(path, MAX_XML, where)
    except OSError as error:
        raise TandemError(f"{where}: cannot be read: {error.strerror} (allowed: the path of an MJCF file)") from error
    try:
        text = content.decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise TandemError(f"{where}: declares a document type or entities (allowed: plain XML)")
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise TandemError(f"{where}: is no XML in UTF-8: {_one_line(error)}") from error
    if root.tag != "mujoco":
        raise TandemError(f"{where}: its root is <{root.tag[:40]}> (allowed: <mujoco>, an MJCF file)")
    return root


def _check(root: ET.Element, where: str) -> None:
    """Raises TandemError for what is refused, and for too much of anything."""
    level, seen, depth = [root], 0, 0
    while level:
        seen += len(level)
        depth += 1
        if seen > MAX_ELEMENTS or depth > MAX_DEPTH:
            raise TandemError(f"{where}: over {MAX_ELEMENTS} elements or {MAX_DEPTH} levels (allowed: a robot alone)")
        for element in level:
            if element.tag in _REFUSED or element.get("plugin") is not None:
                raise TandemError(f"{where}: uses <{element.tag}> (allowed: one file without <{element.tag}>)")
            if element.tag == "mesh" and element.get("builtin", "none") != "none":
                raise TandemError(f"{where}: builds the mesh '{element.get('name')}' (allowed: mesh files)")
        level = [child for element in level for child in element]


def _prune(root: ET.Element) -> None:
    """Drops what a body does not need, and every reference to it."""
    for compiler in root.findall("compiler"):
        for name in ("discardvisual", "fusestatic"):
            compiler.attrib.pop(name, None)
    for asset in root.findall("asset"):
        for item in list(asset):
            if item.tag not in _KEPT_ASSETS:
                asset.remove(item)
    for material in root.iter("material"):
        material.attrib.pop("texture", None)
        for layer in list(material):
            material.remove(layer)
    for world in root.findall("worldbody"):
        for parent in list(world.iter()):
            for child in list(parent):
                flat = child.tag == "geom" and child.get("type") in _DROPPED_GEOMS
                if child.tag in _DROPPED or flat:
                    parent.remove(child)


def _take_meshes(root: ET.Element, path: Path, where: str) -> dict[str, bytes]:
    """The files of the meshes by new names, which are written into ``root``."""
    folder, strip = _mesh_folder(root)
    base, allowed = path.parent, path.resolve().parent.parent
    assets: dict[str, bytes] = {}
    total = 0
    for mesh in root.iter("mesh"):
        file = mesh.get("file")
        if file is None:
            continue
        if mesh.get("name") is None:
            mesh.set("name", Path(file).stem)
        found = base / folder / (Path(file).name if strip else file)
        content = _read_mesh(found, allowed, f"{where}: mesh '{file[:80]}'")
        total += len(content)
        if total > MAX_MESHES:
            raise TandemError(f"{where}: meshes over {MAX_MESHES >> 20} MiB (allowed: that much together)")
        name = f"{len(assets)}{found.suffix.lower()}"
        assets[name] = content
        mesh.set("file", name)
        mesh.attrib.pop("content_type", None)
    return assets


def _mesh_folder(root: ET.Element) -> tuple[str, bool]:
    """Where mesh files lie and whether their own folders are stripped; takes both out of ``root``."""
    folder, strip = "", False
    for compiler in root.findall("compiler"):
        attributes = compiler.attrib
        folder = attributes.pop("meshdir", attributes.pop("assetdir", folder))
        attributes.pop("assetdir", None)
        attributes.pop("texturedir", None)
        strip = attributes.pop("strippath", str(strip)).lower() == "true"
    return folder, strip


def _read_mesh(path: Path, allowed: Path, where: str) -> bytes:
    if path.suffix.lower() not in MESH_TYPES:
        raise TandemError(f"{where}: of unknown type (allowed: {', '.join(MESH_TYPES)})")
    if not path.resolve().is_relative_to(allowed):
        raise TandemError(f"{where}: lies outside of the robot's folders (allowed: in {allowed})")
    try:
        return _read(path, MAX_MESH, where)
    except OSError as error:
        raise TandemError(f"{where}: is missing: {error.strerror} (looked in {path.parent})") from error


def _read(path: Path, most: int, where: str) -> bytes:
    """The bytes of a regular file; raises OSError where there is none, TandemError where there are too many."""
    if path.exists() and not path.is_file():
        raise TandemError(f"{where}: is no file (allowed: a file)")  # a pipe would never end
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise TandemError(f"{where}: larger than {most >> 20} MiB (allowed: a file up to that size)")
    return content


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
