"""The `llmcost` command."""

from llmcost_plugins.cli.main import main

__all__ = ["main"]
