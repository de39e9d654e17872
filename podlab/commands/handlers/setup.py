"""`pod setup`: a machine is checked, and an engine brought to serve on it."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.results import Outcome, Plan
from podlab.errors import BadArgument
from podlab.events import Notice, Work

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def setup(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods
    from podlab.lab import setup as use_case

    if args.check and (args.mount or args.dry_run):
        raise BadArgument("--check changes nothing by itself.", hint="Leave --mount and --dry-run out.")
    pod = pods.meant(workspace, args.pod or args.on)
    wants = use_case.Wants(args.engine, args.models_path, args.mount, args.force)
    if args.dry_run:
        return Outcome(Plan((yield from use_case.plan(workspace, pod, wants, host_key=args.host_key))))
    carry_out = use_case.look if args.check else use_case.setup
    report = yield from carry_out(workspace, pod, wants, host_key=args.host_key)
    failed = [check.name for check in report.checks if check.state == "failed"]
    if failed and not report.ready and not args.check:
        yield Notice(f"Nothing was done: mend {', '.join(failed)}, or insist with --force.", "warning")
    return Outcome(report, 1 if failed and not report.ready else 0)
