"""Whether a run of the timer is to look at the source: the timer comes every hour, so that each window is met."""

from __future__ import annotations

from edged.update.report import Report
from edged.update.window import Window

LOOK_S = 20 * 3600.0
DONE = frozenset({"up_to_date", "staged"})


def not_due(window: str, model: str, last: Report, now_s: float, *, held: bool) -> str:
    """Why the network can be left alone; empty when it is time: once a day, in the window, sooner after a failure.

    `last` is the report of the run before, which tells of one model. Raises ConfigError for a window that is none.
    """
    if window and not (parsed := Window.parse(window)).is_open(now_s + last.clock_behind_s):
        return f"outside the maintenance window {parsed}"
    ago_s = now_s - last.checked_s
    if last.model == model and (held or last.phase in DONE) and 0 <= ago_s < LOOK_S:
        return f"looked {ago_s / 3600:.1f} hours ago"
    return ""
