"""An event store for one conformance scenario, in which a client comes back to a broken stream.

Never for a server with more than one client: the SDK hands one store to all sessions and names
streams by the clients' request ids, so that one client is given another's results.
"""

from collections import OrderedDict

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp.types import JSONRPCMessage

KEEP = 2048


class RingEventStore(EventStore):
    """Keeps the last events in memory."""

    def __init__(self) -> None:
        self._count = 0
        self._events: OrderedDict[int, tuple[StreamId, JSONRPCMessage | None]] = OrderedDict()

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        self._count += 1
        self._events[self._count] = (stream_id, message)
        while len(self._events) > KEEP:
            self._events.popitem(last=False)
        return str(self._count)

    async def replay_events_after(
        self, last_event_id: EventId, send_callback: EventCallback
    ) -> StreamId | None:
        last = int(last_event_id) if last_event_id.isdecimal() else -1
        if last not in self._events:
            return None
        stream, _ = self._events[last]
        for number, (of, message) in list(self._events.items()):
            if number > last and of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream
