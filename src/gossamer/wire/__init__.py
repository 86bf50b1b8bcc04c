"""The wire: requests to model servers and their answers as they come, over kept connections.

An `Endpoint` says where to; `send` gives a `Stream`; an `SSEDecoder` makes events of its bytes, an `NDJSONDecoder`
lines.
"""

from __future__ import annotations

from gossamer.wire.addresses import is_public_address
from gossamer.wire.endpoint import Endpoint, Timeouts
from gossamer.wire.ndjson import NDJSONDecoder
from gossamer.wire.pool import HostStatistics, statistics
from gossamer.wire.sse import Frame, SSEDecoder
from gossamer.wire.stream import Headers, Stream

__all__ = [
    "Endpoint",
    "Frame",
    "Headers",
    "HostStatistics",
    "NDJSONDecoder",
    "SSEDecoder",
    "Stream",
    "Timeouts",
    "is_public_address",
    "statistics",
]
