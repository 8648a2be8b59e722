"""What can go wrong when a fake provider starts."""

from llmcost_plugins.errors import ConfigurationError


class PortInUse(ConfigurationError, OSError):
    """Another program listens on the port that was asked for."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"Port {port} on {host} is in use. Stop what listens there, or pass port=0 for a free one.")
        self.port = port
