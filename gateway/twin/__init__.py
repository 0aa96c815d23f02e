"""A stand-in for the cloud: IAM, real-time services, and faults on request; see README.md here.

Imports nothing else of this project; only `cli` and tests import it.
"""

from gateway.twin.account import Account
from gateway.twin.clock import Clock
from gateway.twin.cloud import Twin
from gateway.twin.faults import FaultError
from gateway.twin.services import ECHO_ID, IMAGE_ID, IRIS_ID, LLM_ID, SLOW_ID

__all__ = [
    "ECHO_ID",
    "IMAGE_ID",
    "IRIS_ID",
    "LLM_ID",
    "SLOW_ID",
    "Account",
    "Clock",
    "FaultError",
    "Twin",
]
