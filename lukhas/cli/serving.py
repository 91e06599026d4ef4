"""`lukhas serve`: the gateway, one process on one port."""

from __future__ import annotations

import gc
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from lukhas.cli.output import Exit, failing_clearly, print_line
from lukhas.errors import ConfigurationError
from lukhas.settings import Settings, load_settings

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML or YAML).")]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    config: ConfigOption = None,
) -> None:
    """Run the gateway until it is told to stop (SIGTERM or Ctrl-C): drain calls, flush records, exit."""
    overrides = {name: str(value) for name, value in (("host", host), ("port", port)) if value is not None}
    with failing_clearly():
        settings = load_settings(config_path=config, overrides=overrides).settings
        run_server(settings)


def run_server(settings: Settings) -> None:
    """Bind, open, serve, drain, close.

    Raises:
        ConfigurationError: the port is taken, or something is not set up.
        StorageUnavailable: a database cannot be used.
    """
    import uvicorn

    from lukhas.app import serve_runtime
    from lukhas.cli.logs import configure_logging
    from lukhas.gateway.runtime import open_runtime

    configure_logging(settings)
    listener = bind(settings.host, settings.port)
    try:
        runtime = open_runtime(settings)
    except BaseException:
        listener.close()
        raise
    app = serve_runtime(runtime)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print_banner(settings, runtime, listener.getsockname()[1])
                # What start-up made lives as long as the process: the collector need not look at it again.
                gc.collect()
                gc.freeze()
                gc.set_threshold(20_000, 20, 50)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            runtime.is_draining = True
            super().handle_exit(sig, frame)

    server = Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise typer.Exit(Exit.UNAVAILABLE)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket's address taken, before anything else is opened.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    name = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as failure:
        raise ConfigurationError(f"Cannot listen on {host}: {failure}.", param="LUKHAS_HOST") from failure
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as failure:
        listener.close()
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {failure.strerror}.",
            hint="Stop what uses it, or choose another with LUKHAS_PORT.",
            param="LUKHAS_PORT",
        ) from failure
    return listener


def print_banner(settings: Settings, runtime: Any, port: int) -> None:
    """Print where things are, the new admin key once, and a line to try."""
    host = f"[{settings.host}]" if ":" in settings.host.strip("[]") else settings.host
    base = f"http://{host}:{port}"
    policy = runtime.policies.policy
    is_echo = settings.upstream_base_url == "echo"
    lines = [
        f"LUKHAS PWM serves on {base}",
        f"  OpenAI base_url  {base}/v1",
        f"  control plane    {base}/api/v1   health {base}/readyz   metrics {base}/metrics",
        f"  upstream         {'echo: no model is called (set LUKHAS_UPSTREAM_BASE_URL)' if is_echo else settings.upstream_base_url}",
        f"  policy           {policy.id} ({policy.source}), mode {settings.mode}",
        f"  data             {settings.data_dir}",
    ]
    shown = "$LUKHAS_ADMIN_KEY"
    admin = runtime.admin
    if settings.auth == "off":
        lines.append("  keys             off: anybody on this machine may call")
        shown = "any"
    elif admin.secret is not None and sys.stdout.isatty():
        shown = admin.secret
        lines.append(f"  admin key        {admin.secret}   (shown this once)")
    elif admin.secret is not None:
        from lukhas.access.keys import write_admin_key_file

        path = write_admin_key_file(settings.data_dir, admin.secret)
        shown = f"$(cat {path})"
        lines.append(f"  admin key        written to {path}")
    elif admin.path is not None:
        shown = f"$(cat {admin.path})"
        lines.append(f"  admin key        in {admin.path}")
    else:
        lines.append(
            "  admin key        " + ("LUKHAS_ADMIN_KEY" if admin.where == "environment" else "as shown at first run")
        )
    model = "echo-1" if is_echo else "gpt-4o-mini"
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    lines += [
        "Try it:",
        f'  curl -si {base}/v1/chat/completions -H "Authorization: Bearer {shown}" \\',
        "    -H 'Content-Type: application/json' -H 'X-Lukhas-Signals: stress=0.7' \\",
        f"    -d '{body}'",
    ]
    for line in lines:
        print_line(line)
    sys.stdout.flush()
