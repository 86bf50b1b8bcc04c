"""Memory: what a model sees of a conversation, kept within a budget; and what is remembered across sessions."""

from __future__ import annotations

from gossamer.memory.longterm import Memory, MemoryMode
from gossamer.memory.tokenizers import CountTokens, counted_with
from gossamer.memory.tokens import TokenCounter
from gossamer.memory.working import Compaction, SummaryMode, WorkingMemory
from gossamer.stores.memories import MemoryKind, StoredMemory

__all__ = [
    "Compaction",
    "CountTokens",
    "Memory",
    "MemoryKind",
    "MemoryMode",
    "StoredMemory",
    "SummaryMode",
    "TokenCounter",
    "WorkingMemory",
    "counted_with",
]
