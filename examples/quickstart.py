"""An agent in three lines. Runs offline; with a key, put "openai:gpt-5-mini" in place of "offline"."""

from __future__ import annotations

from gossamer import Agent

agent = Agent("offline", instructions="Be brief.")

if __name__ == "__main__":
    print(agent.run_sync("What is an agent?").output)
