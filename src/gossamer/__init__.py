"""Gossamer: AI agents whose own cost is close to nothing."""
