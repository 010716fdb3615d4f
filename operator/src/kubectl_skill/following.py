"""Following updates by the API's watch: a live view on a terminal, a line for each change anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from kubectl_skill.command import Session
from kubectl_skill.drawing import draw, line, overview
from kubectl_skill.errors import ExitCode, NotFoundError
from kubectl_skill.picture import Body, Picture, Tone, is_going_back, picture
from kubectl_skill.stages import State

Draw = Callable[[float], RenderableType]


def follow(session: Session, name: str, *, as_json: bool = False) -> int:
    """Follows one update to its end and returns the exit code that says how it ended.

    Raises:
        NotFoundError: there is none of that name, or it was deleted on the way.
    """
    uid = session.cluster.update(name)["metadata"]["uid"]
    with Screen(session, as_json=as_json) as screen:
        for seen in session.cluster.changes(name):
            body = seen.get(uid)
            if body is None:
                raise NotFoundError(f"SkillUpdate {name} was deleted")
            screen.show([body], lambda now, body=body: _view(body, now))  # type: ignore[misc]
            ended = _end(body, session.now())
            if ended is not None:
                return ended
    raise AssertionError("a watch goes on for ever")


def _view(body: Body, now: float) -> RenderableType:
    """Returns the view of an update that is watched already."""
    seen = picture(body, now)
    hints = tuple(command for command in seen.next if not command.startswith("kubectl skill watch "))
    return draw(seen.model_copy(update={"next": hints}), now)


def _end(body: Body, now: float) -> int | None:
    """Returns the exit code of an update that has ended; None while something is to come."""
    seen = picture(body, now)
    is_seen = (body.get("status") or {}).get("observedGeneration") == body["metadata"].get("generation")
    if not seen.final or not is_seen or is_going_back(body):
        return None
    return ExitCode.DONE if seen.tone is Tone.GOOD else ExitCode.NOT_WELL


def follow_all(session: Session, *, as_json: bool = False) -> int:
    """Follows all updates of the namespace, or of all, until somebody stops it."""
    with Screen(session, as_json=as_json) as screen:
        for seen in session.cluster.changes():
            bodies = sorted(seen.values(), key=lambda body: body["metadata"].get("creationTimestamp", ""))
            screen.show(bodies, lambda now, bodies=bodies: _table(session, bodies, now))  # type: ignore[misc]
    raise AssertionError("a watch goes on for ever")


def _table(session: Session, bodies: Iterable[Body], now: float) -> RenderableType:
    pictures = [picture(body, now) for body in bodies]
    if not pictures:
        return Text("no SkillUpdates yet", style="dim")
    return overview(pictures, now, namespaces=session.cluster.everywhere)


class Screen:
    """Where changes appear; a context manager. On a terminal the clocks go on between two changes."""

    def __init__(self, session: Session, *, as_json: bool) -> None:
        self._session, self._as_json = session, as_json
        self._said: Mapping[str, str] = {}
        self._draw: Draw = lambda _: Text()
        self._live: Live | None = None
        if session.out.is_terminal and not as_json:
            self._live = Live(
                console=session.out, refresh_per_second=2, get_renderable=lambda: self._draw(session.now())
            )

    def show(self, bodies: Iterable[Body], view: Draw) -> None:
        """Shows updates: `view` on a terminal; else those lines that say something new."""
        self._draw = view
        if self._live:
            self._live.refresh()
            return
        pictures = [picture(body, self._session.now()) for body in bodies]
        said = {each.uid: self._words(each) for each in pictures}
        for uid, words in said.items():
            if self._said.get(uid) != words:
                self._session.out.print(words, markup=False, soft_wrap=True)
        self._said = said

    def _words(self, seen: Picture) -> str:
        if not self._as_json:
            return line(seen)
        # Durations move with the clock: what is under way has none here, or every look would be a change.
        still = tuple(each if each.state in {State.DONE, State.FAILED} else each.model_copy(update={"seconds": None})
                      for each in seen.stages)  # fmt: skip
        return seen.model_copy(update={"stages": still}).dump_json()

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
