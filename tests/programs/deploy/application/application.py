"""An application that calls a model as the manifests mean it: a plain URL, no credential."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request

FLOWER = {"sepal_length": 3, "sepal_width": 1, "petal_length": 2.2, "petal_width": 4}


def ask() -> str:
    """Return the model's answer, or why there is none."""
    request = urllib.request.Request(
        os.environ["MODEL_URL"],
        data=json.dumps({"data": {"req_data": [FLOWER]}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError as error:
        return f"no answer: {error}"


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    print(ask(), flush=True)
    time.sleep(0.2)
