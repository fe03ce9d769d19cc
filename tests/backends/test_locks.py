"""Locks of networks: one thread at a time, each in its turn, given up within callbacks, free in a forked process."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import time

import pytest

from backprop_gpu.backends.locks import FairLock


def can_be_taken(lock: FairLock, seconds: float = 0.0) -> bool:
    """Whether another thread gets the lock."""
    got = threading.Event()

    def take() -> None:
        with lock.held():
            got.set()

    threading.Thread(target=take, daemon=True).start()
    return got.wait(seconds or 0.2)


def test_it_is_held_until_the_outermost_end() -> None:
    lock = FairLock()
    with lock.held():
        with lock.held():
            pass
        assert not can_be_taken(lock)
    assert can_be_taken(lock, 10.0)


def test_it_is_given_up_and_taken_again_as_often_as_it_was() -> None:
    lock = FairLock()
    with lock.released():  # by a thread that does not have it: nothing
        pass
    with lock.held(), lock.held():
        with lock.released():
            assert can_be_taken(lock, 10.0)
        assert not can_be_taken(lock)
    assert can_be_taken(lock, 10.0)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_it_free(error: type[BaseException]) -> None:
    lock = FairLock()
    with pytest.raises(error), lock.held(), lock.released():
        raise error
    assert can_be_taken(lock, 10.0)


def test_a_thread_that_lets_go_and_takes_again_keeps_nobody_out() -> None:
    lock, stop = FairLock(), threading.Event()

    def hog() -> None:
        while not stop.is_set():
            with lock.held():
                time.sleep(0.001)

    thread = threading.Thread(target=hog)
    thread.start()
    try:
        for _ in range(50):
            assert can_be_taken(lock, 30.0)
    finally:
        stop.set()
        thread.join()


def test_copies_are_free() -> None:
    lock = FairLock(brief=False)
    with lock.held():
        for other in (copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
            assert not other.brief
            assert can_be_taken(other, 10.0)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal can be sent to a thread here")
def test_ctrl_c_while_it_is_waited_for_leaves_it_to_its_owner() -> None:
    lock, done = FairLock(), threading.Event()

    def hold() -> None:
        with lock.held():
            held.set()
            done.wait(30.0)

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30.0)
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    try:
        threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), lock.held():
            pass
    finally:
        signal.signal(signal.SIGINT, before)
        done.set()
        thread.join()
    assert can_be_taken(lock, 10.0)
    assert not lock._waiting


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("brief", [True, False])
def test_a_forked_process_finds_it_free(brief: bool) -> None:
    """A brief one at the end of what its thread was doing, a long one at once; the forking thread's own stays taken."""
    lock, own, state, stop = FairLock(brief), FairLock(), [0], threading.Event()

    def work() -> None:
        while not stop.is_set():
            with lock.held():
                state[0] = 1
                time.sleep(0.002)
                state[0] = 0

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            with own.held():
                child = os.fork()
                if not child:
                    signal.alarm(20)
                    with lock.held():
                        os._exit(own._depth != 1 or (brief and state[0]))
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
