"""`ro-crate-metadata.json` beside the pages: which program made each run, from what, when, and which page shows it.

A Process Run Crate, the profile of the Workflow Run RO-Crate collection for programs that run one after the other:
https://www.researchobject.org/workflow-run-crate/
"""

from __future__ import annotations

import json
import mimetypes
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

from moviegen import runs
from moviegen.config import Params, outputs_folder, project_root
from moviegen.report.sections import SECTIONS, Section
from moviegen.report.wording import in_checkout, typed
from moviegen.runs import Run, fingerprint, registry
from moviegen.runs.files import write_json
from moviegen.runs.hashes import file_hash

FILE = "ro-crate-metadata.json"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run"]
CRATE, PROFILE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.1"
COMPLETED = "http://schema.org/CompletedActionStatus"
Entity = dict[str, Any]


def write(params: Params) -> Path:
    """Describes the published site and the runs that it shows; returns the file."""
    path = outputs_folder(params) / "html" / FILE
    write_json(path, crate(params))
    return path


def crate(params: Params) -> dict[str, Any]:
    """The whole description; entities are named by `@id`, each once."""
    found = [runs.find(params, name) for name in registry.PROGRAMS if registry.is_asked_for(params, name)]
    complete = [run for run in found if run.complete]
    files = _files(outputs_folder(params) / "html")
    made = [*(entity for run in complete for entity in _run(run)), *_environment()]
    for section in SECTIONS:
        made += _page(params, section, {run.name for run in complete})
    actions = [entity for entity in made if entity["@type"] == "CreateAction"]
    entities = [_descriptor(), *_root(params, files, actions), *files, *made]
    return {"@context": CONTEXT, "@graph": list({entity["@id"]: entity for entity in entities}.values())}


def _descriptor() -> Entity:
    return {"@id": FILE, "@type": "CreativeWork", "about": _ref("./"), "conformsTo": _ref(CRATE)}


def _root(params: Params, files: list[Entity], actions: list[Entity]) -> list[Entity]:
    """The site, its licence and authors: what `codemeta.json` says of the software."""
    project = json.loads((project_root() / "codemeta.json").read_text(encoding="utf-8"))
    authors = [{"@id": f"#{quote(one['name'])}", **one} for one in project["author"]]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{project['name']}, scale {params.scale}",
        "description": project["description"],
        "conformsTo": _ref(PROFILE),
        "author": [_ref(one["@id"]) for one in authors],
        "license": _ref(project["license"]),
        "hasPart": [_ref(one["@id"]) for one in files],
        "mentions": [_ref(one["@id"]) for one in actions],
    }
    if ends := [one["endTime"] for one in actions if "endTime" in one]:
        root["datePublished"] = max(ends)
    profile = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.1"}
    licence = {"@id": project["license"], "@type": "CreativeWork", "name": "Apache License 2.0"}
    return [root, profile, licence, *authors]


def _files(site: Path) -> list[Entity]:
    """The files of the site but for this one; what is half written begins with a dot."""
    found = sorted(path for path in site.rglob("[!.]*") if path.is_file() and path.name != FILE)
    return [
        {
            "@id": quote(path.relative_to(site).as_posix()),
            "@type": "File",
            "name": path.name,
            "encodingFormat": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            "contentSize": str(path.stat().st_size),
            "sha256": file_hash(path),
        }
        for path in found
    ]


def _run(run: Run) -> list[Entity]:
    """What a run's manifest says, as an action with what it used and made."""
    manifest, program = run.manifest, run.program
    instrument: Entity = {
        "@id": f"#program-{program.name}",
        "@type": "SoftwareApplication",
        "name": shlex.join(("python", "-m", "moviegen", *program.arguments)),
        "softwareVersion": manifest.get("commit", "unknown"),
        "softwareRequirements": _ref("#environment"),
    }
    parameters = {
        "@id": f"#{run.name}/parameters",
        "@type": "PropertyValue",
        "name": "parameters",
        "value": json.dumps({"seed": run.params.seed, **manifest.get("parameters", {})}),
    }
    facts = {name: manifest.get(name) for name in ("seconds", "peak_memory_bytes", "machine", "versions", "operators")}
    measured = [
        {"@id": f"#{run.name}/{name}", "@type": "PropertyValue", "name": name, "value": typed(value)}
        for name, value in facts.items()
        if value is not None
    ]
    inputs = [
        {
            "@id": f"#{run.name}/{name}",
            "@type": "CreativeWork",
            "name": path,
            "identifier": fingerprint.content_hash(name, path),
        }
        for name, path in program.local_paths(run.params).items()
        if path
    ]
    used = [_made(name) for name in manifest.get("upstream", {}).values()]
    action = {
        "@id": f"#run-{run.name}",
        "@type": "CreateAction",
        "name": f"{program.name}: {instrument['name']}",
        "description": in_checkout(manifest.get("command", "")),
        "instrument": _ref(instrument["@id"]),
        "object": [_ref(one["@id"]) for one in (*used, parameters, *inputs)],
        "result": _ref(_made(run.name)["@id"]),
        "resourceUsage": [_ref(one["@id"]) for one in measured],
        "actionStatus": COMPLETED,
        **_times(manifest.get("started"), manifest.get("finished")),
    }
    return [action, instrument, parameters, *measured, *inputs, *used, _made(run.name)]


def _page(params: Params, section: Section, complete: set[str]) -> list[Entity]:
    """A page, as made from the runs that it shows by its notebook; nothing where that was not executed."""
    executed = section.executed(params)
    if not executed.is_file():
        return []
    times = json.loads(executed.read_text(encoding="utf-8"))["metadata"].get("papermill", {})
    shown = [runs.find(params, name).name for name in section.programs(params)]
    instrument: Entity = {
        "@id": f"#notebook-{section.notebook}",
        "@type": "SoftwareApplication",
        "name": f"notebooks/{section.notebook}",
        "identifier": file_hash(section.source),
        "softwareRequirements": _ref("#environment"),
    }
    action = {
        "@id": f"#page-{section.name}",
        "@type": "CreateAction",
        "name": f"{section.title}: executed by papermill, published by nbconvert",
        "instrument": _ref(instrument["@id"]),
        "object": [_ref(_made(name)["@id"]) for name in shown if name in complete],
        "result": _ref(section.page),
        "actionStatus": COMPLETED,
        **_times(times.get("start_time"), times.get("end_time")),
    }
    return [action, instrument]


def _environment() -> list[Entity]:
    """The locked packages, by the hash of the lock file."""
    lock = file_hash(project_root() / "requirements.lock")
    name = "requirements.lock, the locked environment"
    return [{"@id": "#environment", "@type": "SoftwareApplication", "name": name, "identifier": lock}]


def _made(name: str) -> Entity:
    """What a run left: a folder that is not in the crate, named as in the appendix."""
    return {"@id": f"#{name}", "@type": "CreativeWork", "name": name, "url": f"provenance.html#{name}"}


def _times(start: str | None, end: str | None) -> Entity:
    return {name: time for name, time in (("startTime", start), ("endTime", end)) if time}


def _ref(name: str) -> Entity:
    return {"@id": name}
