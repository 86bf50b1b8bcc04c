"""Counters and histograms of runs, model calls and tools, on prometheus_client. Off costs one check.

Call sites read the module's `recorder` and do nothing where it is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gossamer.usage import Usage

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Recorder", "disable_metrics", "enable_metrics"]

_RUN_BUCKETS = (0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOOL_BUCKETS = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)

# Beyond this many different values of a label, further ones are counted under `other`.
_MAX_LABELS = 1000


class Recorder:
    """The metrics of one process; made by `enable_metrics`.

    Args:
        registry: where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Histogram

        self.registry = registry
        self._creations = Counter("gossamer_agent_creations_total", "Agents built.", registry=registry)
        self._runs = Histogram(
            "gossamer_agent_run_duration_seconds",
            "Duration of runs by agent and by how they ended.",
            ["agent", "outcome"],
            buckets=_RUN_BUCKETS,
            registry=registry,
        )
        self._models = Histogram(
            "gossamer_model_call_duration_seconds",
            "Duration of model calls that were answered, streams to their end.",
            ["model"],
            buckets=_RUN_BUCKETS,
            registry=registry,
        )
        self._first_tokens = Histogram(
            "gossamer_model_first_token_seconds",
            "Time from the request to the first delta of a stream.",
            ["model"],
            buckets=_RUN_BUCKETS,
            registry=registry,
        )
        self._tokens = Counter(
            "gossamer_tokens_total", "Tokens by model and kind.", ["model", "kind"], registry=registry
        )
        self._cost = Counter(
            "gossamer_cost_dollars_total",
            "Money spent on calls of known price.",
            ["model"],
            registry=registry,
        )
        self._tools = Histogram(
            "gossamer_tool_call_duration_seconds",
            "Duration of tool calls by how they ended.",
            ["tool", "outcome"],
            buckets=_TOOL_BUCKETS,
            registry=registry,
        )
        self._errors = Counter(
            "gossamer_errors_total",
            "Runs that failed, by the class of the error.",
            ["kind"],
            registry=registry,
        )
        self._unknown_frames = Counter(
            "gossamer_model_unknown_frames_total",
            "Frames of streams that were of no known kind and were passed over.",
            ["provider", "kind"],
            registry=registry,
        )
        self._retries = Counter(
            "gossamer_model_retries_total",
            "Model calls that were repeated, by the class of the error.",
            ["model", "kind"],
            registry=registry,
        )
        self._fallbacks = Counter(
            "gossamer_model_fallbacks_total",
            "Model calls handed to the next model, by the model that failed and the class of its error.",
            ["model", "kind"],
            registry=registry,
        )
        self._circuits = Counter(
            "gossamer_model_circuit_changes_total",
            "Changes of circuit breakers, by the state they came to.",
            ["model", "state"],
            registry=registry,
        )
        self._rate_limit_waits = Histogram(
            "gossamer_model_rate_limit_wait_seconds",
            "How long model calls waited for the client's own rate limit, those that had to.",
            ["model"],
            buckets=_RUN_BUCKETS,
            registry=registry,
        )
        self._cached = Counter(
            "gossamer_model_cache_requests_total",
            "Model calls that went through a cache: hit, shared with an equal call in flight, or miss.",
            ["model", "outcome"],
            registry=registry,
        )
        self._looks = Counter(
            "gossamer_cache_requests_total",
            "Looks into the tiers of multi-level caches.",
            ["tier", "outcome"],
            registry=registry,
        )
        self._computations = Counter(
            "gossamer_cache_computations_total",
            "Values that multi-level caches had computed, or shared with a computation under way.",
            ["outcome"],
            registry=registry,
        )
        self._invalidations = Counter(
            "gossamer_cache_invalidations_total",
            "What multi-level caches dropped, by what it was and whether this process or another said so.",
            ["kind", "origin"],
            registry=registry,
        )
        self._degraded = Counter(
            "gossamer_cache_degraded_total",
            "Operations of multi-level caches that did without the shared tier.",
            ["operation"],
            registry=registry,
        )
        self._tier_changes = Counter(
            "gossamer_cache_tier_changes_total",
            "Changes of shared tiers, by the state they came to.",
            ["state"],
            registry=registry,
        )
        self._guardrails = Counter(
            "gossamer_guardrail_trips_total",
            "Runs, calls and results that a guardrail stopped, by what it checked.",
            ["guardrail", "place"],
            registry=registry,
        )
        self._store_batches = Histogram(
            "gossamer_store_batch_duration_seconds",
            "Duration of what a store did in one go, a transaction with the writes of many for one.",
            ["work"],
            buckets=_TOOL_BUCKETS,
            registry=registry,
        )
        self._store_jobs = Counter(
            "gossamer_store_jobs_total",
            "Writes and reads that a store did, by whether they came to something.",
            ["work", "outcome"],
            registry=registry,
        )
        self._compactions = Counter(
            "gossamer_memory_compactions_total",
            "Times that a working memory moved a view, by what it did.",
            ["mode"],
            registry=registry,
        )
        self._compacted_tokens = Counter(
            "gossamer_memory_compaction_tokens_total",
            "Tokens of the requests concerned, before and after a working memory moved the view.",
            ["mode", "when"],
            registry=registry,
        )
        self._failed_summaries = Counter(
            "gossamer_memory_failed_summaries_total",
            "Summaries that could not be made, by the class of the error.",
            ["kind"],
            registry=registry,
        )
        self._retrieved = Counter(
            "gossamer_memory_retrieved_total",
            "Memories that runs were shown, by their kind.",
            ["kind"],
            registry=registry,
        )
        self._failed_retrievals = Counter(
            "gossamer_memory_failed_retrievals_total",
            "Runs that went on without memories, as these could not be retrieved.",
            ["kind"],
            registry=registry,
        )
        self._extractions = Counter(
            "gossamer_memory_extractions_total",
            "Extractions of memories by how they ended: done, failed and to be tried again, or dropped.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._sandbox_runs = Histogram(
            "gossamer_sandbox_run_duration_seconds",
            "Duration of runs in sandboxes by how they ended, without the wait for a place.",
            ["sandbox", "outcome"],
            buckets=_TOOL_BUCKETS,
            registry=registry,
        )
        self._sandbox_waits = Histogram(
            "gossamer_sandbox_wait_seconds",
            "How long sessions waited for a place in a sandbox, those that had to.",
            ["sandbox"],
            buckets=_TOOL_BUCKETS,
            registry=registry,
        )
        self._sandbox_starts = Counter(
            "gossamer_sandbox_starts_total",
            "Sessions that began in a sandbox.",
            ["sandbox"],
            registry=registry,
        )
        self._metrics = (
            self._creations,
            self._runs,
            self._models,
            self._first_tokens,
            self._tokens,
            self._cost,
            self._tools,
            self._errors,
            self._unknown_frames,
            self._retries,
            self._fallbacks,
            self._circuits,
            self._rate_limit_waits,
            self._cached,
            self._looks,
            self._computations,
            self._invalidations,
            self._degraded,
            self._tier_changes,
            self._guardrails,
            self._store_batches,
            self._store_jobs,
            self._compactions,
            self._compacted_tokens,
            self._failed_summaries,
            self._retrieved,
            self._failed_retrievals,
            self._extractions,
            self._sandbox_runs,
            self._sandbox_waits,
            self._sandbox_starts,
        )
        # Bound children by label values: finding one by labels() costs more than counting.
        self._observe: dict[tuple[str, ...], Callable[[float], None]] = {}
        self._count: dict[tuple[str, ...], Callable[[float], None]] = {}

    def agent_created(self) -> None:
        """Count an agent."""
        self._creations.inc()

    def run_finished(self, agent: str, outcome: str, seconds: float) -> None:
        """Note the end of a run."""
        observe = self._observe.get((agent, outcome, "run"))
        if observe is None:
            observe = self._bind((agent, outcome, "run"), self._observe, self._runs, "observe")
        observe(seconds)

    def run_failed(self, kind: str) -> None:
        """Count an error that ended a run."""
        count = self._count.get((kind, "error")) or self._bind(
            (kind, "error"), self._count, self._errors, "inc"
        )
        count(1)

    def model_called(self, model: str, seconds: float, usage: Usage) -> None:
        """Note a model call that was answered."""
        observe = self._observe.get((model, "model"))
        if observe is None:
            observe = self._bind((model, "model"), self._observe, self._models, "observe")
        observe(seconds)
        if usage.input_tokens:
            self._add_tokens(model, "input", usage.input_tokens)
        if usage.output_tokens:
            self._add_tokens(model, "output", usage.output_tokens)
        if usage.cached_tokens:
            self._add_tokens(model, "cached", usage.cached_tokens)
        if usage.cost:
            key = (model, "cost")
            count = self._count.get(key) or self._bind(key, self._count, self._cost, "inc")
            count(usage.cost)

    def first_delta(self, model: str, seconds: float) -> None:
        """Note how long a stream took to begin."""
        key = (model, "first")
        observe = self._observe.get(key) or self._bind(key, self._observe, self._first_tokens, "observe")
        observe(seconds)

    def unknown_frame(self, provider: str, kind: str) -> None:
        """Count a frame of a stream that was passed over."""
        key = (provider, kind, "unknown")
        count = self._count.get(key) or self._bind(key, self._count, self._unknown_frames, "inc")
        count(1)

    def model_retried(self, model: str, kind: str) -> None:
        """Count a model call that is repeated."""
        key = (model, kind, "retry")
        count = self._count.get(key) or self._bind(key, self._count, self._retries, "inc")
        count(1)

    def model_fell_back(self, model: str, kind: str) -> None:
        """Count a model call that failed and is handed to the next model."""
        key = (model, kind, "fallback")
        count = self._count.get(key) or self._bind(key, self._count, self._fallbacks, "inc")
        count(1)

    def circuit_changed(self, model: str, state: str) -> None:
        """Count a circuit breaker's coming to a state: `open`, `half_open` or `closed`."""
        key = (model, state, "circuit")
        count = self._count.get(key) or self._bind(key, self._count, self._circuits, "inc")
        count(1)

    def rate_limit_waited(self, model: str, seconds: float) -> None:
        """Note how long a model call waited for its turn."""
        key = (model, "rate limit")
        observe = self._observe.get(key) or self._bind(key, self._observe, self._rate_limit_waits, "observe")
        observe(seconds)

    def cache_asked(self, model: str, outcome: str) -> None:
        """Count a model call that went through a cache: `hit`, `shared` or `miss`."""
        key = (model, outcome, "cache")
        count = self._count.get(key) or self._bind(key, self._count, self._cached, "inc")
        count(1)

    def cache_looked(self, tier: str, outcome: str) -> None:
        """Count a look into a tier, `l1` or `l2`: `hit` or `miss`."""
        key = (tier, outcome, "cache tier")
        count = self._count.get(key) or self._bind(key, self._count, self._looks, "inc")
        count(1)

    def cache_computed(self, outcome: str) -> None:
        """Count a computation of a missing value: `computed`, `shared` or `failed`."""
        key = (outcome, "cache computation")
        count = self._count.get(key) or self._bind(key, self._count, self._computations, "inc")
        count(1)

    def cache_invalidated(self, kind: str, origin: str) -> None:
        """Count what was dropped: a `key`, a `tag`, a `namespace` or `all`, on word from `here` or `elsewhere`."""
        key = (kind, origin, "cache invalidation")
        count = self._count.get(key) or self._bind(key, self._count, self._invalidations, "inc")
        count(1)

    def cache_degraded(self, operation: str) -> None:
        """Count an operation that did without the shared tier: `get`, `set`, `delete`, `compute` or a drop."""
        key = (operation, "cache degraded")
        count = self._count.get(key) or self._bind(key, self._count, self._degraded, "inc")
        count(1)

    def cache_tier_changed(self, state: str) -> None:
        """Count a shared tier's coming to a state: `down` or `up`."""
        key = (state, "cache tier state")
        count = self._count.get(key) or self._bind(key, self._count, self._tier_changes, "inc")
        count(1)

    def guardrail_tripped(self, guardrail: str, place: str) -> None:
        """Count what a guardrail stopped."""
        key = (guardrail, place, "guardrail")
        count = self._count.get(key) or self._bind(key, self._count, self._guardrails, "inc")
        count(1)

    def store_worked(self, work: str, done: int, failed: int, seconds: float) -> None:
        """Note what a store did in one go: `write` or `read`, how many of each, and how long it took."""
        key = (work, "store")
        observe = self._observe.get(key) or self._bind(key, self._observe, self._store_batches, "observe")
        observe(seconds)
        for outcome, number in (("done", done), ("failed", failed)):
            if number:
                key = (work, outcome, "store")
                count = self._count.get(key) or self._bind(key, self._count, self._store_jobs, "inc")
                count(number)

    def view_compacted(self, mode: str, before: int, after: int) -> None:
        """Count that a working memory moved a view: it did `compact` or `compress`."""
        key = (mode, "compactions")
        count = self._count.get(key) or self._bind(key, self._count, self._compactions, "inc")
        count(1)
        for when, tokens in (("before", before), ("after", after)):
            label = (mode, when, "compaction tokens")
            add = self._count.get(label) or self._bind(label, self._count, self._compacted_tokens, "inc")
            add(tokens)

    def summary_failed(self, kind: str) -> None:
        """Count a summary that could not be made."""
        key = (kind, "summary")
        count = self._count.get(key) or self._bind(key, self._count, self._failed_summaries, "inc")
        count(1)

    def memories_retrieved(self, kind: str, memories: int) -> None:
        """Count memories that a run was shown."""
        key = (kind, "retrieved")
        count = self._count.get(key) or self._bind(key, self._count, self._retrieved, "inc")
        count(memories)

    def retrieval_failed(self, kind: str) -> None:
        """Count a run that went on without memories."""
        key = (kind, "failed retrieval")
        count = self._count.get(key) or self._bind(key, self._count, self._failed_retrievals, "inc")
        count(1)

    def extraction_ended(self, kind: str, outcome: str, count: int = 1) -> None:
        """Count extractions that were `done`, `failed`, or were `dropped`."""
        key = (kind, outcome, "extraction")
        add = self._count.get(key) or self._bind(key, self._count, self._extractions, "inc")
        add(count)

    def tool_called(self, tool: str, outcome: str, seconds: float) -> None:
        """Note a tool call."""
        observe = self._observe.get((tool, outcome, "tool"))
        if observe is None:
            observe = self._bind((tool, outcome, "tool"), self._observe, self._tools, "observe")
        observe(seconds)

    def sandbox_ran(self, sandbox: str, outcome: str, seconds: float) -> None:
        """Note the end of a run: `ok`, `code`, `crashed`, `closed`, `file`, `cancelled`, `host`, or a limit's name."""
        key = (sandbox, outcome, "sandbox run")
        observe = self._observe.get(key) or self._bind(key, self._observe, self._sandbox_runs, "observe")
        observe(seconds)

    def sandbox_waited(self, sandbox: str, seconds: float) -> None:
        """Note how long a session waited for a place."""
        key = (sandbox, "sandbox wait")
        observe = self._observe.get(key) or self._bind(key, self._observe, self._sandbox_waits, "observe")
        observe(seconds)

    def sandbox_started(self, sandbox: str) -> None:
        """Count a session that began."""
        key = (sandbox, "sandbox start")
        count = self._count.get(key) or self._bind(key, self._count, self._sandbox_starts, "inc")
        count(1)

    def close(self) -> None:
        """Take the metrics out of their registry."""
        for metric in self._metrics:
            self.registry.unregister(metric)

    def _add_tokens(self, model: str, kind: str, tokens: int) -> None:
        key = (model, kind, "tokens")
        count = self._count.get(key) or self._bind(key, self._count, self._tokens, "inc")
        count(tokens)

    def _bind(
        self,
        key: tuple[str, ...],
        bound: dict[tuple[str, ...], Callable[[float], None]],
        metric: Any,
        method: str,
    ) -> Callable[[float], None]:
        values = key[: len(metric._labelnames)]
        if len(bound) >= _MAX_LABELS:
            return getattr(metric.labels("other", *values[1:]), method)
        bound[key] = call = getattr(metric.labels(*values), method)
        return call


recorder: Recorder | None = None


def enable_metrics(registry: CollectorRegistry | None = None) -> Recorder:
    """Start to count runs, model calls and tools in this process.

    Args:
        registry: where to register; prometheus_client's own default where None.

    Returns:
        The recorder; the same one where metrics are on already.

    Raises:
        ImportError: prometheus_client is missing; install `gossamer[metrics]`.
    """
    global recorder  # noqa: PLW0603 - one switch a process, read by every call site
    if recorder is None:
        try:
            from prometheus_client import REGISTRY
        except ImportError as error:
            raise ImportError("metrics need prometheus_client: pip install 'gossamer[metrics]'") from error
        recorder = Recorder(registry or REGISTRY)
    return recorder


def disable_metrics() -> None:
    """Stop counting; what was registered is taken out of its registry."""
    global recorder  # noqa: PLW0603 - as above
    if recorder is None:
        return
    recorder.close()
    recorder = None
