"""Begin, add, commit, abort: what is refused, what is kept, and who may write."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import numpy as np
import pytest

from tandem_datasets.beside import LOCK
from tandem_datasets.codecs import CODECS
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Source
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

INFO = EpisodeInfo(seed=3, instruction="find the red block", env="tandem/Rig-v0")


@pytest.fixture
def recorder(tmp_path, embodiment):
    recorder = Recorder(tmp_path / "store", embodiment, fsync=False)
    yield recorder
    recorder.abort()
    recorder.close()


def test_commit_returns_and_stores_the_final_facts(recorder, embodiment, make_frames):
    recorder.begin(replace(INFO, begin_ns=100, provenance={"policy": "expert", "weights": [1, 2]}))
    for frame in make_frames(embodiment, 4, begin_ns=100):
        recorder.add(frame)
    assert recorder.n_open_frames == 4
    info = recorder.commit(success=True, outcome="success")
    assert (info.success, info.outcome, info.end_ns) == (True, "success", 100 + 3 * embodiment.period_ns)
    assert Store(recorder.path).info(0) == info
    assert (recorder.n_episodes, recorder.n_frames, recorder.n_open_frames) == (1, 4, 0)


def test_order_of_calls(recorder, embodiment, make_frames):
    frame = make_frames(embodiment, 1)[0]
    with pytest.raises(TandemError, match="add without an open episode"):
        recorder.add(frame)
    with pytest.raises(TandemError, match="commit without an open episode"):
        recorder.commit()
    recorder.begin(INFO)
    with pytest.raises(TandemError, match="begin while it is open"):
        recorder.begin(INFO)
    with pytest.raises(TandemError, match="commit without a frame"):
        recorder.commit()
    recorder.add(frame)
    recorder.abort()
    recorder.abort()
    assert Store(recorder.path).n_episodes == 0
    recorder.close()
    recorder.close()
    with pytest.raises(TandemError, match="closed"):
        recorder.begin(INFO)


def _image(frame, image):
    return _observation(frame, images={**frame.observation.images, "top": image})


def _observation(frame, **changes):
    return replace(frame, observation=replace(frame.observation, **changes))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: _observation(f, state=f.observation.state.astype(np.float64)), "frame 2: state is float64"),
        (lambda f: _observation(f, images={}), "cameras"),
        (lambda f: _observation(f, images={"side": f.observation.images["top"]}), "frame 2: cameras .'side'. "),
        (lambda f: _image(f, f.observation.images["top"][:, :-1]), r"frame 2: camera 'top' is uint8 \(6, 7, 3\)"),
        (lambda f: _image(f, f.observation.images["top"].astype(float)), "camera 'top' is float64"),
        (lambda f: _image(f, f.observation.images["top"].tolist()), "camera 'top' is a list"),
        (lambda f: _observation(f, state=np.array([0, np.inf, 0], np.float32)), "state is not finite"),
        (lambda f: _observation(f, state=[0.0, 0.0, 0.0]), "state is a list"),
        (lambda f: replace(f, action=None), "action is a NoneType"),
        (lambda f: replace(f, action=np.array([0, np.nan], np.float32)), "action is not finite"),
        (lambda f: replace(f, action=f.action[:1]), "action is float32"),
        (lambda f: replace(f, requested=np.full(2, np.nan, np.float32)), "requested is not finite"),
        (lambda f: replace(f, label=np.zeros(3, np.float32)), "label is float32"),
        (lambda f: replace(f, reward=float("inf")), "reward"),
        (lambda f: replace(f, source=9), "source is 9"),
        (lambda f: _observation(f, instruction="\ud800"), "instruction"),
        (lambda f: _observation(f, stamp_ns=f.observation.stamp_ns - 33_333_333), "time runs forward"),
        (lambda f: _observation(f, stamp_ns=1.5), "whole number"),
        (lambda f: _observation(f, stamp_ns=2**63), "64 bits"),
        (lambda f: _observation(f, stream_stamps_ns={"side": 0}), "unknown streams"),
        (lambda f: _observation(f, stream_stamps_ns={"top": f.observation.stamp_ns + 1}), "after its tick"),
    ],
)
def test_a_bad_frame_leaves_the_episode_intact(recorder, embodiment, make_frames, assert_same_frames, spoil, words):
    frames = make_frames(embodiment, 4)
    recorder.begin(INFO)
    for frame in frames[:2]:
        recorder.add(frame)
    with pytest.raises(TandemError, match=words) as caught:
        recorder.add(spoil(frames[2]))
    assert len(str(caught.value).splitlines()) == 1
    for frame in frames[2:]:
        recorder.add(frame)
    recorder.commit()
    assert_same_frames(Store(recorder.path).frames(0), frames)


def test_frames_before_the_begin_are_refused(recorder, embodiment, make_frames):
    recorder.begin(replace(INFO, begin_ns=10))
    with pytest.raises(TandemError, match="the episode begins at 10 ns"):
        recorder.add(make_frames(embodiment, 1)[0])


def test_arrays_may_be_reused_by_the_caller(recorder, embodiment, make_frames, assert_same_frames):
    frames, again = make_frames(embodiment, 3), make_frames(embodiment, 3)
    recorder.begin(INFO)
    for frame in frames:
        recorder.add(frame)
        for array in (*frame.observation.images.values(), frame.observation.state, frame.action):
            array[...] = 0
    recorder.commit()
    assert_same_frames(Store(recorder.path).frames(0), again)


def test_arrays_may_be_read_only_or_views(tmp_path, embodiment, make_frames, assert_same_frames):
    """Images that come off the wire are read-only; cropped and flipped ones are not contiguous."""
    frames = make_frames(embodiment, 2)
    wanted = frames[1].observation.images["top"]
    flipped = np.ascontiguousarray(wanted[::-1, ::-1])[::-1, ::-1]
    frozen = np.frombuffer(frames[0].observation.images["top"].tobytes(), np.uint8).reshape(wanted.shape)
    given = [
        _observation(frame, images={**frame.observation.images, "top": image})
        for frame, image in zip(frames, (frozen, flipped), strict=True)
    ]
    for codec in (name for name, codec in CODECS.items() if codec.lossless):
        with Recorder(tmp_path / codec, embodiment, codec=codec) as recorder:
            recorder.write_episode(INFO, given)
        assert_same_frames(Store(tmp_path / codec).frames(0), frames)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sucess": True}, "did you mean 'success'"),
        ({"end_ns": 1}, "its frames are from"),
        ({"seed": 2**63}, "64 bits"),
        ({"outcome": None}, "outcome is None"),
        ({"failure_reason": 3}, "failure_reason is 3"),
        ({"env": "\ud800"}, "env is"),
        ({"uuid": "first"}, "allowed: a UUID"),
        ({"provenance": {"a": np.zeros(1)}}, "JSON"),
        ({"provenance": "me"}, "a mapping"),
    ],
)
def test_wrong_facts_leave_the_episode_open(recorder, embodiment, make_frames, changes, words):
    recorder.begin(INFO)
    for frame in make_frames(embodiment, 2):
        recorder.add(frame)
    with pytest.raises(TandemError, match=words):
        recorder.commit(**changes)
    recorder.commit()
    assert Store(recorder.path).n_episodes == 1


def test_leaving_with_an_open_episode_drops_it_and_says_so(tmp_path, embodiment, make_frames):
    def leave(error: Exception | None) -> None:
        with Recorder(tmp_path / "a", embodiment) as recorder:
            recorder.write_episode(INFO, make_frames(embodiment, 3))
            recorder.begin(INFO)
            recorder.add(make_frames(embodiment, 1)[0])
            if error:
                raise error

    with pytest.raises(TandemError, match="open episode of 1 frames"):
        leave(None)
    with pytest.raises(ZeroDivisionError):
        leave(ZeroDivisionError())
    with Recorder(tmp_path / "a", embodiment) as recorder:
        assert recorder.n_episodes == 2


def test_write_episode_keeps_nothing_of_a_broken_one(recorder, embodiment, make_frames):
    frames = make_frames(embodiment, 3)
    with pytest.raises(TandemError, match="time runs forward"):
        recorder.write_episode(INFO, [*frames, frames[0]])
    recorder.write_episode(INFO, frames)
    assert Store(recorder.path).n_frames == 3


def test_groups_reach_the_disk_together(tmp_path, embodiment, make_frames, assert_same_frames):
    episodes = [make_frames(embodiment, 2 + k, seed=k) for k in range(5)]
    with Recorder(tmp_path / "a", embodiment, group=3) as recorder:
        seen = []
        for k, frames in enumerate(episodes):
            recorder.write_episode(EpisodeInfo(seed=k, instruction=""), frames)
            seen.append(Store(recorder.path).n_episodes)
        assert seen == [0, 0, 3, 3, 3]
        assert (recorder.n_episodes, recorder.n_frames) == (5, 20)
    store = Store(tmp_path / "a")
    assert store.load_episodes("seed").tolist() == [0, 1, 2, 3, 4]
    for k, frames in enumerate(episodes):
        assert_same_frames(store.frames(k), frames)


def test_one_writer_at_a_time(tmp_path, embodiment):
    with Recorder(tmp_path / "a", embodiment):
        with pytest.raises(TandemError, match=f"process {os.getpid()}"):
            Recorder(tmp_path / "a", embodiment)
        assert Store(tmp_path / "a").n_episodes == 0
    Recorder(tmp_path / "a", embodiment).close()


def test_who_only_looks_whether_it_is_locked_stops_no_recorder(tmp_path, embodiment):
    """Bug: `tandem data validate` at the same moment, and there was another writer called unknown."""
    Recorder(tmp_path / "a", embodiment).close()
    looking = os.open(tmp_path / "a" / LOCK, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    later = threading.Timer(0.05, os.close, (looking,))
    later.start()
    Recorder(tmp_path / "a", embodiment).close()
    later.join()


def test_an_opening_that_fails_keeps_no_lock(tmp_path, embodiment, monkeypatch):
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tandem_datasets.writer.clear_beside", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Recorder(tmp_path / "a", embodiment)
    Recorder(tmp_path / "a", embodiment).close()


def test_the_lock_names_its_owner_and_dies_with_it(tmp_path, embodiment):
    """Also where the owner left a forked child behind, which still has the lock's file open."""
    code = """
        import os, sys, time
        sys.argv[0] = "/usr/bin/teleop"
        from tandem_datasets.recorder import Recorder
        from tandem_datasets.store import Store
        recorder = Recorder(sys.argv[1], Store(sys.argv[1]).embodiment)
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(1)
            os.write(writing, b"x")
            time.sleep(60)
        os.read(reading, 1)  # so far the child holds it, too
        print("ready", flush=True)
        time.sleep(60)
    """
    Recorder(tmp_path / "a", embodiment).close()
    run = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a")]
    owner = subprocess.Popen(run, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert owner.stdout is not None
        owner.stdout.readline()
        with pytest.raises(TandemError, match=f"process {owner.pid} on .*, teleop .*, since 20"):
            Recorder(tmp_path / "a", embodiment)
        owner.kill()
        owner.wait()
        Recorder(tmp_path / "a", embodiment).close()
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.stdout.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.timeout(60)
def test_a_forked_child_may_not_record(recorder, embodiment, make_frames):
    """Bug: with an episode open it waited for ever for threads that only its parent has."""
    frames = make_frames(embodiment, 2)
    for begun in (False, True):
        if begun:
            recorder.begin(INFO)
            recorder.add(frames[0])
        child = os.fork()
        if child == 0:
            refused = 0
            for call in (
                lambda: recorder.begin(INFO),
                lambda: recorder.add(frames[1]),
                recorder.commit,
                recorder.flush,
            ):
                try:
                    call()
                except TandemError as error:
                    refused += "opened by process" in str(error)
            recorder.abort()
            recorder.close()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    recorder.add(frames[1])
    recorder.commit()
    assert Store(recorder.path).n_frames == 2


def test_marks_of_deletion_are_set_and_lifted(tmp_path, embodiment, make_frames):
    with Recorder(tmp_path / "a", embodiment, group=5) as recorder:
        for k in range(4):
            recorder.write_episode(EpisodeInfo(k, "say", deleted=k == 0), make_frames(embodiment, 3, seed=k))
        recorder.mark_deleted([1, 3])
        store = Store(tmp_path / "a")
        assert store.kept.tolist() == [2]
        recorder.mark_deleted([0, 3], deleted=False)
        assert store.kept.tolist() == [2]
        store.refresh()
        assert store.kept.tolist() == [0, 2, 3]
        assert [info.deleted for info in store.infos()] == [False, True, False, False]
        with pytest.raises(TandemError, match="no episode 4"):
            recorder.mark_deleted([4])


def test_an_existing_store_must_be_the_same(tmp_path, embodiment, blind):
    Recorder(tmp_path / "a", embodiment).close()
    with pytest.raises(TandemError, match=r"'rig' is not 'blind': .*action \(elbow\), not"):
        Recorder(tmp_path / "a", blind)
    with pytest.raises(TandemError, match="is not 'twin'"):
        Recorder(tmp_path / "a", replace(embodiment, name="twin"))
    with pytest.raises(TandemError, match="its codec is zstd, not raw"):
        Recorder(tmp_path / "a", embodiment, codec="raw")
    with pytest.raises(TandemError, match="already there"):
        Recorder(tmp_path / "a", embodiment, exist_ok=False)
    with pytest.raises(TandemError, match="unknown name 'png'"):
        Recorder(tmp_path / "b", embodiment, codec="png")
    with pytest.raises(TandemError, match="group is 0"):
        Recorder(tmp_path / "b", embodiment, group=0)
    assert not (tmp_path / "b").exists()
    Recorder(tmp_path / "a", embodiment).close()  # none of them kept the lock


@pytest.mark.parametrize("name", ["file", "folder", "zarr", "data_only"])
def test_other_files_are_never_touched(tmp_path, embodiment, name):
    path = tmp_path / name
    kept = {
        "file": path,
        "folder": path / "thesis.tex",
        "zarr": path / "zarr.json",
        "data_only": path / "data" / "x.csv",
    }[name]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("{}")
    with pytest.raises(TandemError, match=r"something else|not a Tandem store"):
        Recorder(path, embodiment)
    assert [item for item in tmp_path.rglob("*") if item.is_file()] == [kept]


def test_a_creation_that_was_killed_is_begun_anew(tmp_path, embodiment, make_frames):
    Recorder(tmp_path / "a", embodiment).close()
    (tmp_path / "a" / "zarr.json").unlink()  # written last
    with pytest.raises(TandemError, match="no store"):
        Store(tmp_path / "a")
    with Recorder(tmp_path / "a", embodiment, exist_ok=False) as recorder:
        recorder.write_episode(INFO, make_frames(embodiment, 2))
    assert Store(tmp_path / "a").n_frames == 2


def test_camera_names_may_not_take_those_of_arrays(tmp_path, embodiment):
    camera = embodiment.cameras[0]
    for names in (("reward",), ("state",), ("a", "stamp_a")):
        rig = replace(embodiment, cameras=tuple(replace(camera, name=name) for name in names))
        with pytest.raises(TandemError, match="collide"):
            Recorder(tmp_path / "a", rig)


def test_the_contract_is_read_without_zarr_torch_or_ros():
    code = """
        import sys
        import tandem_datasets.recorder, tandem_datasets.store, tandem_datasets.compare
        heavy = {"zarr", "numcodecs", "torch", "rclpy", "cv2", "gymnasium"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_sources_fit_their_column():
    assert max(Source) < 256


def test_an_interrupt_while_committing_comes_when_it_is_certain(tmp_path):
    """Bugs: Ctrl-C struck between the commit and what its caller noted; put off, it waited for a sleep to end."""
    code = """
        import os, signal, sys, time
        import numpy as np
        from tandem_datasets import files
        from tandem_datasets.embodiment import Camera, Embodiment
        from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
        from tandem_datasets.recorder import Recorder

        class Interrupting:
            count = 0

            def run(self, operation, path, whole, half):
                self.count += 1
                if self.count == 5:
                    time.sleep(0.1)  # so that the main thread waits for the commit by now
                    os.kill(os.getpid(), signal.SIGINT)
                return whole()

        rig = Embodiment("rig", 30.0, False, (Camera("top", 4, 4),), (), ())
        nothing = np.zeros(0, np.float32)
        with Recorder(sys.argv[1], rig) as recorder:
            files.inject(Interrupting())
            recorder.begin(EpisodeInfo(0, ""))
            seen = Observation({"top": np.zeros((4, 4, 3), np.uint8)}, nothing, "", 0)
            recorder.add(Frame(seen, nothing, Source.PERSON))
            try:
                recorder.commit()
                begin = time.monotonic()
                print("committed", recorder.n_episodes)
                time.sleep(30)
            except KeyboardInterrupt:
                print("interrupted", recorder.n_episodes, "soon" if time.monotonic() - begin < 15 else "late")
            files.inject(None)
    """
    run = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["committed 1", "interrupted 1 soon"]
    assert Store(tmp_path / "a").n_episodes == 1


@pytest.mark.parametrize("count", [0, 3])
def test_a_frame_whose_adding_was_interrupted_is_not_in(
    tmp_path, embodiment, make_frames, assert_same_frames, monkeypatch, count
):
    """Bug: it was counted, so an episode without a frame could be committed, and the store never opened again."""
    frames = make_frames(embodiment, count + 1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.write_episode(INFO, frames)
        recorder.begin(INFO)
        for frame in frames[:count]:
            recorder.add(frame)
        for target in ("tandem_datasets.pipeline.Pipeline.block", "tandem_datasets.parts.Block.put"):
            with monkeypatch.context() as patch:
                patch.setattr(target, interrupt)
                if count and target.endswith("block"):
                    continue  # it has one
                with pytest.raises(KeyboardInterrupt):
                    recorder.add(frames[count])
        assert recorder.n_open_frames == count
        if count:
            recorder.commit()
        else:
            with pytest.raises(TandemError, match="commit without a frame"):
                recorder.commit()
            recorder.abort()
    store = Store(tmp_path / "a")
    assert store.n_episodes == (2 if count else 1)
    assert_same_frames(store.frames(store.n_episodes - 1), frames[:count] if count else frames)


def test_an_episode_that_lacks_frames_is_never_committed(tmp_path, embodiment, make_frames, monkeypatch):
    """Whatever came between: an interrupt while a block was handed over, no thread to encode it."""
    frames = make_frames(embodiment, 40)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with Recorder(tmp_path / "a", embodiment) as recorder:
        recorder.begin(INFO)
        with monkeypatch.context() as patch:
            patch.setattr("tandem_datasets.pipeline.Pipeline.submit", refuse)
            for number, frame in enumerate(frames[:32]):
                if number < 31:
                    recorder.add(frame)
                else:
                    with pytest.raises(RuntimeError):
                        recorder.add(frame)
        for frame in frames[32:]:
            recorder.add(frame)
        with pytest.raises(TandemError, match="an episode is lost, 8 frames of it: only 8 of its 40 frames"):
            recorder.commit()
        recorder.write_episode(INFO, frames)
    assert Store(tmp_path / "a").episode_ends.tolist() == [40]


@pytest.mark.parametrize("way", ["abort", "recover", "lost"])
def test_a_long_episode_that_waits_for_its_group_is_kept(tmp_path, embodiment, make_frames, assert_same_frames, way):
    """Bug: what the next episode left behind was cleared away, and with it the rows that only the disk had."""
    long, short = make_frames(embodiment, 600), make_frames(embodiment, 40, seed=1)
    with Recorder(tmp_path / "a", embodiment, group=3) as recorder:
        recorder.write_episode(INFO, long)
        recorder.begin(INFO)
        for frame in short:
            recorder.add(frame)
        if way == "abort":
            recorder.abort()
        elif way == "recover":
            recorder.recover()
        elif way == "lost":
            recorder._episode.check.count += 1
            recorder.commit()
            with pytest.raises(TandemError, match="only 40 of its 41 frames"):
                recorder.flush()
        assert (recorder.n_episodes, recorder.n_open_frames) == (1, 0)
        recorder.write_episode(INFO, short)
    store = Store(tmp_path / "a")
    assert store.episode_ends.tolist() == [600, 640]
    assert_same_frames(store.frames(0), long)
    assert_same_frames(store.frames(1), short)


def test_an_open_episode_stays_open_while_finished_ones_are_committed(
    tmp_path, embodiment, make_frames, assert_same_frames
):
    """Bug: whoever flushed, or set a mark, was rid of the open episode without a word."""
    episodes = [make_frames(embodiment, 5 + k, seed=k) for k in range(4)]
    with Recorder(tmp_path / "a", embodiment, group=3) as recorder:
        for commit in (recorder.flush, lambda: recorder.mark_deleted([0])):
            first, second = episodes[recorder.n_episodes], episodes[recorder.n_episodes + 1]
            recorder.write_episode(INFO, first)
            recorder.begin(INFO)
            recorder.add(second[0])
            commit()
            assert recorder.n_open_frames == 1
            for frame in second[1:]:
                recorder.add(frame)
            recorder.commit()
            recorder.flush()
    store = Store(tmp_path / "a")
    assert store.kept.tolist() == [1, 2, 3]
    for k, frames in enumerate(episodes):
        assert_same_frames(store.frames(k), frames)
