"""`lukhas serve`: the gateway, one process on one port."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lukhas.cli.output import ConfigOption, Exit, JsonOption, failing_clearly, print_line
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.gateway.runtime import Runtime


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the gateway until it is told to stop (SIGTERM or Ctrl-C): drain calls, flush records, exit."""
    overrides = {name: str(value) for name, value in (("host", host), ("port", port)) if value is not None}
    with failing_clearly(as_json):
        settings = load_settings(config_path=config, overrides=overrides).settings
        from lukhas.cli.log import configure_logging
        from lukhas.cli.server import serve_until_stopped

        configure_logging(settings)

        def announce(runtime: Runtime, port: int) -> None:
            facts = describe(settings, runtime, port)
            if as_json:
                import orjson

                # One line, so that a program can read it while the gateway goes on serving.
                print_line(orjson.dumps(facts).decode())
            else:
                print_banner(settings, facts)
            sys.stdout.flush()

        if not serve_until_stopped(settings, announce):
            raise typer.Exit(Exit.UNAVAILABLE)


def describe(settings: Settings, runtime: Runtime, port: int) -> dict[str, Any]:
    """Return where things are. A new admin key goes to the terminal, or to a file where nobody is looking."""
    host = f"[{settings.host}]" if ":" in settings.host.strip("[]") else settings.host
    url = f"http://{host}:{port}"
    admin = runtime.admin
    path, shown = admin.path, None
    if settings.auth == "off":
        where = "off"
    elif admin.secret is None:
        where = (
            "environment" if admin.where == "environment" else "file" if path is not None else "as shown at first run"
        )
    elif sys.stdout.isatty():
        where, shown = "shown", admin.secret
    else:
        from lukhas.access.keys import write_admin_key_file

        where, path = "file", write_admin_key_file(settings.data_dir, admin.secret)
    return {
        "url": url,
        "base_url": f"{url}/v1",
        "upstream": settings.upstream_base_url,
        "policy": runtime.policies.policy.id,
        "policy_source": runtime.policies.policy.source,
        "mode": settings.mode,
        "data_dir": str(settings.data_dir),
        "admin_key": {"where": where, "file": None if path is None else str(path), "secret": shown},
    }


def print_banner(settings: Settings, facts: dict[str, Any]) -> None:
    """Print where things are, the new admin key once, and a line to try."""
    url, admin = facts["url"], facts["admin_key"]
    is_echo = settings.upstream_base_url == "echo"
    upstream = "echo: no model is called (set LUKHAS_UPSTREAM_BASE_URL)" if is_echo else facts["upstream"]
    shown, explained = {
        "off": ("any", "off: anybody on this machine may call"),
        "shown": (admin["secret"], f"{admin['secret']}   (shown this once)"),
        "file": (f"$(cat '{admin['file']}')", f"in {admin['file']}"),
        "environment": ("$LUKHAS_ADMIN_KEY", "LUKHAS_ADMIN_KEY"),
    }.get(admin["where"], ("$LUKHAS_ADMIN_KEY", f"{admin['where']} (make another: lukhas key create --scope admin)"))
    body = (
        f'{{"model": "{"echo-1" if is_echo else "gpt-4o-mini"}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    )
    for line in (
        f"LUKHAS PWM serves on {url}",
        f"  OpenAI base_url  {url}/v1",
        f"  control plane    {url}/api/v1",
        f"  health, metrics  {url}/readyz  {url}/metrics",
        f"  upstream         {upstream}",
        f"  policy           {facts['policy']} ({facts['policy_source']}), mode {facts['mode']}",
        f"  data             {facts['data_dir']}",
        f"  admin key        {explained}",
        "Try it:",
        f'  curl -si {url}/v1/chat/completions -H "Authorization: Bearer {shown}" \\',
        "    -H 'Content-Type: application/json' -H 'X-Lukhas-Signals: stress=0.7' \\",
        f"    -d '{body}'",
    ):
        print_line(line)
