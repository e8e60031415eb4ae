"""Work for several processes, that ends with them in every case."""
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager


def work_through(function, jobs, workers, finished):
    """Call finished(job, function(*job)) for each job: one after the other, or as `workers` processes are done with them.

    function  has to be importable, as processes are started afresh: forked ones inherit torch's threads in a broken state
    raises    what a job raises, and BrokenProcessPool where a process died; no process is left then
    """
    if workers == 1:
        for job in jobs:
            finished(job, function(*job))
        return
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn"), watch_parent) as pool:
        try:
            with interrupts_ignored():
                futures = {pool.submit(function, *job): job for job in jobs}
            for future in as_completed(futures):
                finished(futures[future], future.result())
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@contextmanager
def interrupts_ignored():
    """What is started meanwhile ignores Ctrl-C for good, which a terminal sends to all: it is this process that ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield                                                    # only the main thread may set this, and gets interrupts
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def watch_parent():
    """Let a worker end when its parent dies, however that comes about."""
    def end_with(parent):
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with, args=[multiprocessing.parent_process()], daemon=True).start()
