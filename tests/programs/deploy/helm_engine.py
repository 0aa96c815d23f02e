"""Helm's own engine, asked in JSON: run by the validators' Python, which has it as a library.

Standard input: a list of {chart, values, namespace, kube_version?}. Standard output: for each
{lint: [message…], manifest} or {error}.
"""

import json
import sys
from typing import Any

import helm_python


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Lint a chart with values, and render it."""
    chart, values = question["chart"], question["values"]
    namespace = question["namespace"]
    try:
        linted = helm_python.lint(chart, values, strict=True, namespace=namespace)
        with helm_python.Chart.load(chart) as loaded:
            files = loaded.render(values, name="demo", namespace=namespace)
    except helm_python.HelmError as error:
        return {"error": str(error)}
    manifest = "\n---\n".join(
        text for name, text in sorted(files.items()) if name.endswith(".yaml") and text.strip()
    )
    return {"lint": linted["errors"], "manifest": manifest}


json.dump([answer(question) for question in json.load(sys.stdin)], sys.stdout)
