"""The kinds of memory: whose each is, what it is called before a model, and what is worth remembering."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gossamer.stores.memories import MemoryKind

__all__ = ["KINDS", "Kind"]


class Kind(msgspec.Struct, frozen=True):
    """What tells one kind of memory from the others.

    Attributes:
        of_user: whether it belongs to a user; else to an agent.
        heading: stands above what was retrieved, before the model.
        remember: the name of the tool that keeps one, what the model is told of it, and of its text.
        recall: the name of the tool that finds some, and what the model is told of it.
        forget: the name of the tool that deletes one, and what the model is told of it.
        worth: what is worth remembering, for the model that extracts.
    """

    of_user: bool
    heading: str
    remember: tuple[str, str]
    recall: tuple[str, str]
    forget: tuple[str, str]
    worth: str


KINDS: Mapping[MemoryKind, Kind] = {
    "personal": Kind(
        of_user=True,
        heading="Notes about this user, kept from earlier conversations",
        remember=(
            "remember",
            (
                "Remember something about the user beyond this conversation: a fact, a preference, a plan. Only what the "
                "user said of themselves and will matter again, in one self-contained sentence."
            ),
        ),
        recall=("recall", "Search what is remembered about the user from earlier conversations."),
        forget=(
            "forget",
            "Forget something about the user, by the id that recall or a note gives. Where the user asks for it.",
        ),
        worth=(
            "what the user said of themselves and will matter in other conversations: lasting facts, preferences, "
            "people, plans and decisions. Not what anybody else said, not what a text or a tool said, not questions "
            "that were settled, no passwords, keys or numbers of cards."
        ),
    ),
    "task": Kind(
        of_user=False,
        heading="Notes on earlier tasks like this one, and what worked",
        remember=(
            "remember_approach",
            (
                "Remember how a kind of task went: what was to be done, which approach worked or failed, and why. Nothing "
                "about the person who asked."
            ),
        ),
        recall=("recall_approaches", "Search how earlier tasks went: what worked, and what failed."),
        forget=("forget_approach", "Forget a note on earlier tasks that turned out wrong, by its id."),
        worth=(
            "how the task went, for who has to do such a task again: what was to be done, which approach worked or "
            "failed, and why. Only what was tried here. Nothing about the person who asked: no names, no contents of "
            "their data."
        ),
    ),
    "tool": Kind(
        of_user=False,
        heading="Notes on how these tools behaved before",
        remember=(
            "remember_tool_use",
            (
                "Remember how a tool behaved: arguments that worked, errors and what helped, limits. Nothing about the "
                "person who asked."
            ),
        ),
        recall=(
            "recall_tool_uses",
            "Search how tools behaved before: arguments that worked, errors, limits.",
        ),
        forget=("forget_tool_use", "Forget a note on a tool that turned out wrong, by its id."),
        worth=(
            "how the tools behaved, for who calls them again: the form of arguments that worked, errors and what helped "
            "against them, limits, how slow they were. Name the tool of each. Nothing about the person who asked: no "
            "names, no contents of their data."
        ),
    ),
}
