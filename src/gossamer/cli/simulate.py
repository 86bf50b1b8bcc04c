"""`gossamer simulate`: a model provider of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gossamer.simulator import RateFault, Simulator, serve
from gossamer.simulator.faults import RATE_FAULTS

__all__ = ["simulate"]


def simulate(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    latency: float = 0.0,
    tps: float = 0.0,
    chunks: int | None = None,
    error_rate: float = 0.0,
    fault: Annotated[tuple[RateFault, ...], Parameter(negative="")] = (),
    script: Path | None = None,
    seed: int = 0,
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve a model provider that costs nothing, until Ctrl-C.

    The path of a request says which format is spoken: OpenAI's Chat Completions or Responses, Anthropic's, Gemini's or
    Ollama's. /stats shows what was asked.

    Args:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        latency: seconds before the first byte of an answer.
        tps: chunks a second in each answer; 0 sends at full speed.
        chunks: repeat or cut the default answer to so many tokens.
        error_rate: the share of requests that fail, 0 to 1.
        fault: how they fail; may be given several times; in every way if left out.
        script: a JSON file of replies.
        seed: of the faults: the same one fails the same requests.
        certificate: a PEM file; with --key the server speaks TLS.
        key: a PEM file with the certificate's key.

    Raises:
        ArgumentError: a value is out of range, the script cannot be read, or the port is taken.
    """
    serve(
        host=host,
        port=port,
        latency=latency,
        tps=tps,
        chunks=chunks,
        error_rate=error_rate,
        faults=fault or RATE_FAULTS,
        script=script,
        seed=seed,
        certificate=certificate,
        key=key,
        announce=_announce,
    )


def _announce(simulator: Simulator) -> str:
    url = simulator.url
    return (
        f"{url}\n"
        f"Try it: OPENAI_BASE_URL={url} gossamer run\n"
        f"    or: ANTHROPIC_BASE_URL={url.removesuffix('/v1')} ANTHROPIC_API_KEY=any gossamer run"
    )
