import os
import signal
import subprocess
import sys
import textwrap
from contextlib import closing
from functools import partial

import psutil
import pytest

from tandem_datasets.codecs import codec_by_name
from tandem_datasets.errors import TandemError
from tandem_datasets.workers import each_in_order, in_order


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items_whoever_made_them(workers):
    with closing(each_in_order(range, [3, 0, 7, 1], workers, "here")) as each:
        assert [list(results) for results in each] == [[0, 1, 2], [], [0, 1, 2, 3, 4, 5, 6], [0]]


def test_one_result_an_item():
    assert list(in_order(len, ["a", "", "xyz"], 1, "here")) == [1, 0, 3]
    assert list(in_order(len, [], 2, "here")) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_arrives_as_its_one_line(workers):
    results = in_order(partial(codec_by_name, where="elsewhere"), ["raw", "gif", "raw"], workers, "here")
    with closing(results), pytest.raises(TandemError, match="elsewhere: codec: unknown name 'gif'"):
        list(results)


def test_a_dead_worker_is_told():
    with pytest.raises(TandemError, match="here: worker process ended with status 3"):
        list(in_order(os._exit, [3, 3], 2, "here"))


def test_workers_end_with_who_started_them():
    """Bug: killed, it left processes behind that waited for ever to be asked for their results."""
    code = """
        import multiprocessing, time
        from tandem_datasets.workers import in_order
        results = in_order(time.sleep, [0.0] * 100, 2, "here")
        next(results)
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        time.sleep(60)
    """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        owner.kill()
    assert len(workers) == 2
    _, left = psutil.wait_procs(workers, timeout=10)
    for process in left:
        process.kill()
    assert not left


def test_ctrl_c_is_left_to_who_started_them():
    ours = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    items = [(), (signal.SIGUSR1,), ()]  # a mask that is set is seen by the next item of the same process
    theirs = list(in_order(partial(signal.pthread_sigmask, signal.SIG_BLOCK), items, 2, "here"))
    assert [signal.SIGINT in mask for mask in theirs] == [True] * 3
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == ours


@pytest.mark.parametrize("workers", [0, -1, 257, 1.5, True])
def test_numbers_of_workers_that_make_no_sense_are_refused(workers):
    with pytest.raises(TandemError, match="here: workers is"):
        list(in_order(len, [""], workers, "here"))
