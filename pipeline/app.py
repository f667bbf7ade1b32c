"""`pipeline app`: predict in a browser: drop a film or record one, watch the progress, look at its page."""

import html
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from data_tools.errors import DataError
from data_tools.media.audio import audio_duration_s
from data_tools.media.source import probe
from data_tools.names import for_terminal
from pipeline.command import Command, fields_of
from pipeline.predict import predict
from pipeline.progress import Reporter, T, Work
from pipeline.settings import RUN_HELP, ConfigError, Device, LocalPath, Settings, flag
from pipeline.timeline.predictor import Predictor

if TYPE_CHECKING:
    from fastapi import FastAPI

HERE = "127.0.0.1"
# The pages of films and what gradio loads come from this server; browsers refuse everything else.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = ((b"content-security-policy", _POLICY.encode()), (b"x-content-type-options", b"nosniff"))


class AppSettings(Settings):
    """Settings of `pipeline app`."""

    run: LocalPath = flag(help=RUN_HELP)
    host: str = flag(HERE, help="The address to listen at; other machines reach it only where it is another one.")
    port: int = flag(7860, ge=0, le=65535, help="The port to listen at; 0 for any free one.")
    out: LocalPath | None = flag(None, help="A folder that keeps the files of each film; by default they are deleted.")
    max_mb: float = flag(2000.0, gt=0, help="Largest film that is taken, in megabytes.")
    max_length_s: float = flag(3600.0, gt=0, help="Longest film that is taken, in seconds.")
    device: Device = flag("auto", help="auto, cpu or cuda.")


def app(
    run: Path,
    host: str,
    port: int,
    out: Path | None,
    max_mb: float,
    max_length_s: float,
    device: Device,
    reporter: Reporter,
) -> dict[str, Any]:
    """Serve the app until it is interrupted. Returns {"run", "url", "films": scored}; for the others see AppSettings.

    Raises:
        ConfigError: gradio is not installed, the address is taken, or as `predict`. DataError: as `predict`.
    """
    sockets = [_listen(host, port)]
    with tempfile.TemporaryDirectory(prefix="emotion-app-") as scratch, sockets[0]:
        limits = Limits(max_mb, max_length_s)
        studio = Studio(run, Path(scratch), out, limits, device)
        server = build_server(studio, host)
        url = f"http://{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}"
        reporter.say(f"open {url} in a browser; stop with Ctrl-C")
        if host not in (HERE, "localhost", "::1"):
            reporter.say("everybody who reaches this machine can use it: there is no password and no encryption")
        import uvicorn

        with suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(server, log_level="warning")).run(sockets=sockets)
    return {"run": str(run), "url": url, "films": len(studio.films)}


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error


@dataclass(frozen=True)
class Limits:
    """Largest film in megabytes of 10^6 bytes, longest one in seconds."""

    max_mb: float
    max_length_s: float

    def refuses(self, film: Path) -> str:
        """Reason not to take a film; empty where there is none. Raises DataError where it cannot be read."""
        megabytes = film.stat().st_size / 1e6
        if not megabytes:
            return "the film is empty: drop it again, or record for longer"
        if megabytes > self.max_mb:
            return f"the film has {megabytes:.1f} MB, the limit is {self.max_mb:g} MB (--max-mb)"
        about = probe(film)
        # What browsers record does not say how long it is.
        length_s = about.duration_s or (audio_duration_s(film) if about.has_audio else 0.0)
        if length_s > self.max_length_s:
            return f"the film lasts {length_s:.1f} s, the limit is {self.max_length_s:g} s (--max-length-s)"
        return ""


class Studio:
    """Scores films that were given to the app, and remembers where their files are.

    films: secret part of an address -> the files of one film by name.

    Raises:
        ConfigError, DataError: as `predict`.
    """

    def __init__(self, run: Path, scratch: Path, out: Path | None, limits: Limits, device: Device) -> None:
        self.notice = Predictor(run, device).task.facts.notice
        self.run, self.scratch, self.limits, self.device = run, scratch, limits, device
        self.films: dict[str, dict[str, Path]] = {}
        self._out = scratch / "films" if out is None else out

    def answer(self, film: Path, transcript: Path | None, show: Callable[[float, str], None]) -> str:
        """HTML with the page of a film and links to its files, or with the reason for which there is none.

        show: gets a share in [0, 1] and words while the film is scored.
        """
        try:
            if reason := self.limits.refuses(film):
                return _problem(reason)
            words = None if transcript is None else str(transcript)
            (answer,) = predict(self.run, [film], words, self.device, _Shown(show), out=self._out)["files"]
        except (ConfigError, DataError) as error:
            return _problem(str(error))
        if answer["error"]:
            return _problem(answer["error"])
        token = secrets.token_urlsafe(16)
        files = {path.name: path for path in map(Path, answer["written"])}
        self.films[token] = files
        page = next(name for name in files if name.endswith(".html"))
        links = " · ".join(
            f'<a href="{_address(token, name)}" download>{html.escape(for_terminal(name))}</a>' for name in files
        )
        frame = f'<iframe id="film-page" src="{_address(token, page)}" title="The film and its scores"></iframe>'
        return f"{frame}<p>Files: {links}</p>"


def _address(token: str, name: str) -> str:
    return f"films/{token}/{quote(os.fsencode(name))}"


def _problem(reason: str) -> str:
    return f'<p class="problem" role="alert">{html.escape(for_terminal(reason))}</p>'


class _Shown(Reporter):
    """Progress for the page instead of a terminal."""

    def __init__(self, show: Callable[[float, str], None]) -> None:
        super().__init__(quiet=True)
        self._show = show

    def track(
        self,
        items: Iterable[T],
        total: int,
        label: str,
        unit: str,
        work: Work[T] | None = None,  # noqa: ARG002
        has_own_line: bool = False,  # noqa: ARG002
    ) -> Iterator[T]:
        """`items` unchanged, while their share is shown, at most a hundred times."""
        shown = -1
        for number, item in enumerate(items, start=1):
            yield item
            if (percent := 100 * number // total) > shown:
                shown = percent
                self._show(number / total, f"{label}: {number} of {total} {unit}")


def build_server(studio: Studio, host: str) -> "FastAPI":
    """The app as a web server: gradio's page, and the files of films that were scored in it.

    Raises:
        ConfigError: gradio is not installed.
    """
    # Before gradio is imported: it asks an address of its makers otherwise, and keeps uploads in a place of its own.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(studio.scratch / "uploads")
    try:
        import gradio
        from fastapi import FastAPI
        from fastapi.responses import FileResponse, Response
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError as error:
        raise ConfigError(
            "gradio is not installed; it is the extra `app`: pip install 'emotion-pipeline[app]'"
        ) from error

    server = FastAPI(openapi_url=None)
    server.add_middleware(_WithHeaders)
    # A name that leads to this machine is no right to use it: pages of strangers could take one.
    server.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost"] if host == HERE else ["*"])

    @server.get("/films/{token}/{name}")
    def file(token: str, name: str) -> Response:
        path = studio.films.get(token, {}).get(name)
        return Response(status_code=404) if path is None else FileResponse(path)

    return gradio.mount_gradio_app(
        server,
        _blocks(gradio, studio),
        path="/",
        server_name=host,
        max_file_size=round(studio.limits.max_mb * 1e6),
        show_error=True,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css="#film-page { width: 100%; height: 88vh; border: 0; } .problem { font-weight: 600; }",
    )


def _blocks(gradio: Any, studio: Studio) -> Any:
    """The page with its parts. gradio: the module, which is imported where it is needed."""
    limits = f"at most {studio.limits.max_mb:g} MB and {studio.limits.max_length_s:g} s"
    with gradio.Blocks(title="Emotions of a film", analytics_enabled=False, fill_width=True) as blocks:
        gradio.HTML(
            f"<h1>Emotions of a film</h1><p>{limits}. It stays on this machine.</p>"
            + (f"<p><b>{html.escape(studio.notice)}</b></p>" if studio.notice else "")
        )
        with gradio.Row():
            with gradio.Column(), gradio.Tabs():
                with gradio.Tab("A film"):
                    film = gradio.File(label="Film or sound", elem_id="film")
                    score_film = gradio.Button("Score the film", variant="primary")
                with gradio.Tab("Webcam"):
                    options = gradio.WebcamOptions(mirror=False, constraints={"video": {"width": 640, "height": 480}})
                    webcam = gradio.Video(
                        label="Webcam", sources=["webcam"], include_audio=True, webcam_options=options, buttons=[]
                    )
                    score_webcam = gradio.Button("Score the recording", variant="primary")
            transcript = gradio.File(label="Subtitles with times, if there are any (.srt, .vtt, .ass, .json)")
        answer = gradio.HTML(elem_id="answer")

        def score(given: str | None, words: str | None, progress: Any = gradio.Progress()) -> str:  # noqa: B008
            if given is None:
                return _problem("there is no film yet: drop one, or record one")
            return studio.answer(
                Path(given), None if words is None else Path(words), lambda share, text: progress(share, desc=text)
            )

        for button, source in ((score_film, film), (score_webcam, webcam)):
            button.click(score, [source, transcript], answer, api_visibility="private")
    # One film at a time: a second one would only make both slower.
    return blocks.queue(default_concurrency_limit=1)


class _WithHeaders:
    """ASGI middleware that adds `_HEADERS` to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, with_headers)


def format_app(result: dict[str, Any]) -> str:
    """One line for people at the end."""
    return f"{result['films']} films were scored"


COMMAND = Command(
    app,
    (AppSettings,),
    example="pipeline app --run runs/first",
    read=fields_of(AppSettings),
    for_people=format_app,
)
