"""Records of the access log, made from what a test says of them."""

from typing import Any

from gateway.observe.access_log import Record


def record_of(**fields: Any) -> Record:
    """Return a record with these fields; the others are as of a request of which nothing is known.

    Raises:
        AttributeError: a record has no such field.
    """
    record = Record()
    for name, value in fields.items():
        getattr(record, name)
        setattr(record, name, value)
    return record
