"""Random trees of teams: usage adds up, and each member runs as often as it is asked."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer import Agent, Message, Session, Team, ToolCall, Usage
from gossamer.models import ModelResponse, ScriptedModel

# A tree: a leaf is how many tokens its model uses a call; a team is a mode and its members.
_TREES = st.recursive(
    st.integers(1, 9),
    lambda inner: st.tuples(
        st.sampled_from(["broadcast", "sequential", "consensus", "coordinate", "route"]),
        st.lists(inner, min_size=1, max_size=4),
    ),
    max_leaves=12,
)


class Built:
    """A tree of teams, and what its models were asked."""

    def __init__(self, tree) -> None:
        self.asked: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()
        self.tokens = 0
        self.tool_calls = 0
        self.root = self.build(tree, "r", runs=1)

    def model(self, name: str, tokens: int, reply) -> ScriptedModel:
        def answer(request):
            self.asked[name] += 1
            said = reply(request)
            message = Message.assistant(said) if isinstance(said, str) else Message("assistant", tuple(said))
            reason = "stop" if isinstance(said, str) else "tool_calls"
            return ModelResponse(message, Usage(input_tokens=tokens, model_calls=1), reason)

        return ScriptedModel(answer)

    def build(self, tree, name: str, runs: int):
        """Build a tree that is asked so many times in all, and add up what that comes to."""
        if isinstance(tree, int):
            self.expected[name] += runs
            self.tokens += tree * runs
            return Agent(self.model(name, tree, lambda request: "yes"), name=name)
        mode, members = tree
        names = [f"{name}{number}" for number in range(len(members))]
        if mode == "route":  # the last one
            counts = [0] * (len(members) - 1) + [runs]
        elif mode == "coordinate":  # each twice
            counts = [2 * runs] * len(members)
        else:  # all say the same at once where they seek consensus
            counts = [runs] * len(members)
        self.tool_calls += sum(counts)
        made = [self.build(one, its, count) for one, its, count in zip(members, names, counts, strict=True)]
        leader = None
        if mode == "route":
            self.expected[f"{name}-lead"] += runs
            self.tokens += runs
            leader = self.model(
                f"{name}-lead", 1, lambda request: [ToolCall(f"ask_{names[-1]}", "{}", "one")]
            )
        elif mode == "coordinate":
            self.expected[f"{name}-lead"] += 2 * runs
            self.tokens += 2 * runs
            calls = [
                ToolCall(f"ask_{one}", '{"prompt": "go"}', f"{one}-{time}")
                for one in names
                for time in (1, 2)
            ]

            def lead(request):
                return "yes" if request.messages[-1].role == "tool" else calls

            leader = self.model(f"{name}-lead", 1, lead)
        if mode == "consensus" and not all(isinstance(one, int) for one in members):
            mode = "broadcast"  # teams inside would say different things
        return Team(made, mode=mode, leader=leader, name=name)


@settings(max_examples=120, deadline=None)
@given(_TREES, st.booleans())
async def test_usage_adds_up_over_any_tree_of_teams(tree, streamed):
    built = Built(tree)
    session = Session()
    if streamed:
        async with built.root.stream("x", session=session) as stream:
            async for _ in stream:
                pass
        result = stream.result
    else:
        result = await built.root.run("x", session=session)
    assert built.asked == Counter({name: count for name, count in built.expected.items() if count})
    assert result.usage.input_tokens == built.tokens
    assert result.usage.model_calls == sum(built.expected.values())
    assert result.usage.tool_calls == built.tool_calls
    assert session.usage == result.usage
    assert Session.from_export(session.export()).usage == result.usage
