"""Agents together."""

from __future__ import annotations

from gossamer.flow.delegating import Member
from gossamer.flow.handoff import handoff
from gossamer.flow.plan import Plan, PlanChange, PlanItem, plan_of, plan_toolkit
from gossamer.flow.team import Team

__all__ = ["Member", "Plan", "PlanChange", "PlanItem", "Team", "handoff", "plan_of", "plan_toolkit"]
