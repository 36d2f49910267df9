"""MuJoCo Studio in a browser on this machine.

Its web viewer listens on every network interface, without a password and without encryption. Here it listens on the
loopback interface only; from elsewhere, go through ``ssh -L 8080:127.0.0.1:8080 HOST``.
"""

import copy
import logging
from contextlib import AbstractContextManager
from typing import Any

import mujoco

from tandem_datasets.errors import TandemError
from tandem_sim.performing import Instant

LOOPBACK = "127.0.0.1"


class Studio(AbstractContextManager):
    """A :class:`~tandem_sim.watching.Screen` in the browser.

    Args:
        title: of the page.
        port: to listen on; None: the first free one from 8080.

    Raises:
        TandemError: MuJoCo Studio is not installed, cannot be kept to this machine, or its port is taken.
    """

    def __init__(self, title: str, port: int | None) -> None:
        try:
            from mujoco.studio import app, launch_thread, viewer_protocol
        except ImportError as error:
            raise TandemError(f"MuJoCo Studio: {error} (wanted: pip install mujoco-studio)") from error
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)  # a page that is closed is no error
        viewer = _local_viewer()
        config = viewer_protocol.ViewerConfig(title=title, gfx="web", http_port=port or 0)

        def run(endpoint: Any) -> None:
            viewer_protocol.run_viewer_loop(viewer(config, endpoint, plugins=[app.App()]))

        self._handle = launch_thread.launch_thread(run)
        self._model: mujoco.MjModel | None = None
        self._data: mujoco.MjData | None = None

    def begin(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model = copy.copy(model)
        self._data = mujoco.MjData(self._model)
        mujoco.mj_copyData(self._data, self._model, data)
        self._running()

    def show(self, data: mujoco.MjData, instant: Instant) -> bool:
        assert self._model is not None
        if not self._running():
            return False
        if instant.step == 0 or instant.last:
            print(f"{instant.instruction}{': ' * instant.last}{instant.outcome}", flush=True)
        mujoco.mj_copyData(self._data, self._model, data)
        self._handle.sync(self._model, self._data)
        return True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._handle.close()
        except (RuntimeError, OSError, TandemError):
            if kind is None:
                raise

    def _running(self) -> bool:
        try:
            return self._handle.is_running()
        except (RuntimeError, OSError) as error:
            raise TandemError(f"MuJoCo Studio: {' '.join(str(error).split())}") from error


def _local_viewer() -> type:
    """Its web viewer, bound to the loopback interface; it has no setting for that."""
    from mujoco.studio import web_viewer

    class LocalViewer(web_viewer.WebViewer):
        @property
        def _host(self) -> str:
            return LOOPBACK

        @_host.setter
        def _host(self, host: str) -> None:
            pass  # it would be every interface

        def _start_server(self) -> None:
            for name in ("_http_sock", "_tcp_sock"):  # bound, and not yet listening to anybody
                bound = getattr(self, name).getsockname()[0] if hasattr(self, name) else "unknown"
                if bound != LOOPBACK:
                    raise TandemError(f"MuJoCo Studio: {name} is bound to {bound} (allowed: {LOOPBACK})")
            super()._start_server()

    return LocalViewer
