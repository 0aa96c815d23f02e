"""Expressions of admission policies (CEL), evaluated: run by the validators' Python.

Standard input: a list of {expression, object}. Standard output: the list of their values.
"""

import json
import sys

import cel

json.dump(
    [cel.evaluate(one["expression"], {"object": one["object"]}) for one in json.load(sys.stdin)],
    sys.stdout,
)
