"""What a run needs of an agent: put together when the run begins, and where another agent takes over."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from gossamer.asking import Emit
from gossamer.context import AgentLike, RunContext
from gossamer.middleware import Layers, layers
from gossamer.models.base import Model, ModelSettings
from gossamer.models.registry import resolve
from gossamer.opening import instructions_of, settings_over, tools_of
from gossamer.schema import OutputSchema, output_schema
from gossamer.session import Session
from gossamer.tools.equipment import Equipment, needs_equipment
from gossamer.tools.toolset import NO_TOOLS, Toolset, toolset

if TYPE_CHECKING:
    from gossamer.guardrails.beside import ModelBeside
    from gossamer.guardrails.checking import Guards
    from gossamer.memory.during import Memories

__all__ = ["Setup", "set_up"]


class Setup(msgspec.Struct, eq=False):
    """What a run needs of an agent.

    Attributes:
        agent: the agent.
        model: its model.
        settings: how the model is to answer, or None.
        schema: what the answer must look like, None for text.
        layers: its middleware, or None.
        guards: its guardrails, or None.
        kit: its tools as they are now.
        equipment: what tells its tools anew before each model call, None where they stay as they are.
        words: the system prompt, with what toolkits add to it, or None.
        instructions: the same without.
        listen: takes the deltas of its answers, or None.
        beside: its model with checks of the input beside the next call, or None.
        memory: its memories, or None.
    """

    agent: AgentLike
    model: Model
    settings: ModelSettings | None
    schema: OutputSchema | None
    layers: Layers | None
    guards: Guards | None
    kit: Toolset
    equipment: Equipment | None
    words: str | None
    instructions: str | None
    listen: Emit | None
    beside: ModelBeside | None = None
    memory: Memories | None = None

    def become(self, other: Setup) -> None:
        """Take over all of another one."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(other, name))

    def kept(self, heard: list[str]) -> list[str]:
        """Give what is kept of an answer that broke off."""
        return heard if self.guards is None else self.guards.kept(heard)

    async def refresh(self, context: RunContext[Any]) -> None:
        """Look which tools there are now, where toolkits may have been switched or have changed."""
        if self.equipment is None:
            if not needs_equipment(self.kit, context):
                return
            self.equipment = Equipment(context, self.kit)
        self.kit = await self.equipment.toolset()
        self.words = _joined(self.instructions, self.kit)


def set_up(
    agent: AgentLike,
    context: RunContext[Any],
    output: Any,
    settings: ModelSettings | None,
    tools: Any,
    emit: Emit | None,
    equipment: Equipment | None = None,
) -> Setup | Coroutine[Any, Any, Setup]:
    """Put together what a run needs of an agent; the run gets a session where its tools need one.

    Args:
        agent: the agent.
        context: the run.
        output: the output type, in place of the agent's.
        settings: laid over the agent's.
        tools: in place of the agent's.
        emit: takes events, or None.
        equipment: what the run holds open already, of an agent that hands over.

    Returns:
        All of it; or what to await for it, where functions of the agent are to be asked or toolkits to be looked at.

    Raises:
        GossamerError: something of it cannot be had; the message says what.
    """
    kind = agent.output if output is None else output
    guards: Guards | None = None
    if agent.guardrails:
        from gossamer.guardrails.checking import Guards

        guards = Guards(agent.guardrails)
    memory: Memories | None = None
    if agent.memory is not None:
        from gossamer.memory.during import Memories

        memory = Memories(agent.memory)
    own: Any = agent.tools if tools is None else tools
    instructions = agent.instructions
    settled = own.__class__ is tuple and tools is None  # when the agent was built
    plain = type(instructions) is str
    kit = toolset(own) if settled and own else NO_TOOLS
    setup = Setup(
        agent,
        resolve(agent.model) if type(agent.model) is str else agent.model,
        agent.settings if settings is None else settings_over(agent.settings, settings),
        None if kind is str else output_schema(kind),
        layers(agent.middleware) if agent.middleware else None,
        guards,
        kit,
        equipment,
        (_joined(instructions, kit) if kit.instructions else instructions or None) if plain else None,
        instructions,
        emit if guards is None else guards.listener(emit),
        None,
        memory,
    )
    if (
        not settled
        or equipment is not None
        or not plain
        or (context.session is None and (kit.needs_session or memory is not None))
        or (kit.toolkits and needs_equipment(kit, context))
    ):
        return _complete(setup, context, None if settled else own)
    return setup


async def _complete(setup: Setup, context: RunContext[Any], tools: Any) -> Setup:
    """Ask the functions of the agent, make a session where one is needed, and look at the toolkits."""
    agent = setup.agent
    if tools is not None:
        setup.kit = await tools_of(tools, context)
    kit = setup.kit
    if context.session is None and (kit.needs_session or setup.memory is not None):
        context.session = Session()
        context.session.holding.holder = context
    if callable(agent.instructions):
        setup.instructions = await instructions_of(agent, context)
    setup.words = _joined(setup.instructions, kit)
    if setup.equipment is not None:
        setup.equipment.serve(kit)
    if kit.toolkits:
        try:
            await setup.refresh(context)
        except BaseException:
            if setup.equipment is not None:
                setup.equipment.release()
            raise
    return setup


def _joined(instructions: str | None, kit: Toolset) -> str | None:
    return "\n\n".join(filter(None, (instructions, kit.instructions))) or None
