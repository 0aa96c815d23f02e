"""Checks objects of kinds that are not Kubernetes' own against their published types.

The types are TypeScript's, from npm: an unknown key, a wrong type or an unknown word of a closed
set is the compiler's error.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.programs.deploy.parts import ROOT
from tests.support.tools import npm_program

_FOLDER = ROOT / ".venv" / "deploy" / "custom-resources"
_PACKAGES = {
    "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
    "external-secrets.io": "@kubernetes-models/external-secrets",
    "generators.external-secrets.io": "@kubernetes-models/external-secrets",
    "traefik.io": "@kubernetes-models/traefik",
    "security.istio.io": "@kubernetes-models/istio",
}
_VERSIONS = (
    "@kubernetes-models/prometheus-operator@6.0.0",
    "@kubernetes-models/external-secrets@2.0.0",
    "@kubernetes-models/traefik@2.0.0",
    "@kubernetes-models/istio@3.0.1",
    "typescript@7.0.2",
)


def is_known(document: dict[str, Any]) -> bool:
    """True if `faults_of` knows this kind."""
    return _group(document) in _PACKAGES


def faults_of(documents: list[dict[str, Any]], folder: Path) -> str:
    """Return what the compiler says about these objects; empty if all are good.

    Args:
        documents: of kinds that `is_known` knows.
        folder: where the program to compile is written.
    """
    tsc = npm_program(_FOLDER, "tsc", *_VERSIONS)
    modules = _FOLDER / "node_modules"
    lines = []
    for number, document in enumerate(documents):
        package = modules / _PACKAGES[_group(document)]
        kind = document["kind"]
        lines.append(
            f'import {{ I{kind} as T{number} }} from "{package}/{document["apiVersion"]}";'
        )
        lines.append(f"export const d{number}: T{number} = {json.dumps(document, indent=1)};")
    source = folder / "custom-resources.ts"
    source.write_text("\n".join(lines))
    done = subprocess.run(
        [
            tsc, "--noEmit", "--strict", "--skipLibCheck", "--module", "esnext",
            "--moduleResolution", "bundler", source,
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.stdout


def _group(document: dict[str, Any]) -> str:
    return str(document["apiVersion"]).partition("/")[0]
