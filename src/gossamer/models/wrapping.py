"""What models that wrap one model have in common: they look like the one inside."""

from __future__ import annotations

from gossamer.models.base import Capabilities, Model, Price, least_output_of, price_of
from gossamer.models.presets import check_model, provider_model

__all__ = ["WrappedModel"]


class WrappedModel:
    """A model that asks another one; name, dialect, capabilities and price are the inner one's.

    Args:
        model: the model inside; the key of one that a string names is looked for at the first use.

    Raises:
        ArgumentError: no model, or a string that names none.
    """

    __slots__ = ("_model",)

    def __init__(self, model: Model | str) -> None:
        check_model(model)
        self._model: Model | str = model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r})"

    @property
    def model(self) -> Model:
        """The model inside.

        Raises:
            AuthenticationError: it was given as a string, and its key is not set.
        """
        if isinstance(self._model, str):
            self._model = self._named(self._model)
        return self._model

    def _named(self, name: str) -> Model:
        """Give the model that a string names: without retries of its own, for each attempt should be seen."""
        return provider_model(name)

    @property
    def name(self) -> str:
        """The inner model's name."""
        return self.model.name

    @property
    def dialect(self) -> str:
        """The inner model's wire format."""
        return self.model.dialect

    @property
    def capabilities(self) -> Capabilities:
        """What the inner model can do."""
        return self.model.capabilities

    @property
    def price(self) -> Price | None:
        """What the inner model costs, or None where that is not known."""
        return price_of(self.model)

    @property
    def least_output_tokens(self) -> int:
        """The lowest cap on an answer that the inner model's provider takes; see `Model`."""
        return least_output_of(self.model)

    @property
    def prices_answers(self) -> bool:
        """Whether the inner model prices its answers itself; see `Model`."""
        return getattr(self.model, "prices_answers", False)
