"""Memory: keeps what a model sees of a conversation within a budget, and counts its tokens."""

from __future__ import annotations

from gossamer.memory.tokenizers import CountTokens, counted_with
from gossamer.memory.tokens import TokenCounter
from gossamer.memory.working import Compaction, SummaryMode, WorkingMemory

__all__ = ["Compaction", "CountTokens", "SummaryMode", "TokenCounter", "WorkingMemory", "counted_with"]
