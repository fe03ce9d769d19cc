"""Locks of networks: one thread at a time, each in its turn, given up within callbacks, free in a forked process."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import time

import pytest

from backprop_gpu.backends.locks import Turns


def can_be_taken(turns: Turns, seconds: float = 0.0) -> bool:
    """Whether another thread gets the lock."""
    got = threading.Event()

    def take() -> None:
        with turns.taken():
            got.set()

    threading.Thread(target=take, daemon=True).start()
    return got.wait(seconds or 0.2)


def test_it_is_held_until_the_outermost_end() -> None:
    turns = Turns()
    with turns.taken():
        with turns.taken():
            pass
        assert not can_be_taken(turns)
    assert can_be_taken(turns, 10.0)


def test_it_is_given_up_and_taken_again_as_often_as_it_was() -> None:
    turns = Turns()
    with turns.released():  # by a thread that does not have it: nothing
        pass
    with turns.taken(), turns.taken():
        with turns.released():
            assert can_be_taken(turns, 10.0)
        assert not can_be_taken(turns)
    assert can_be_taken(turns, 10.0)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_it_free(error: type[BaseException]) -> None:
    turns = Turns()
    with pytest.raises(error), turns.taken(), turns.released():
        raise error
    assert can_be_taken(turns, 10.0)


def test_a_thread_that_lets_go_and_takes_again_keeps_nobody_out() -> None:
    turns, stop = Turns(), threading.Event()

    def hog() -> None:
        while not stop.is_set():
            with turns.taken():
                time.sleep(0.001)

    thread = threading.Thread(target=hog)
    thread.start()
    try:
        for _ in range(50):
            assert can_be_taken(turns, 30.0)
    finally:
        stop.set()
        thread.join()


def test_copies_are_free() -> None:
    turns = Turns(brief=False)
    with turns.taken():
        for other in (copy.deepcopy(turns), pickle.loads(pickle.dumps(turns))):
            assert not other.brief
            assert can_be_taken(other, 10.0)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal can be sent to a thread here")
def test_ctrl_c_while_it_is_waited_for_leaves_it_to_its_owner() -> None:
    turns, done = Turns(), threading.Event()

    def hold() -> None:
        with turns.taken():
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
        with pytest.raises(KeyboardInterrupt), turns.taken():
            pass
    finally:
        signal.signal(signal.SIGINT, before)
        done.set()
        thread.join()
    assert can_be_taken(turns, 10.0)
    assert not turns._waiting


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("brief", [True, False])
def test_a_forked_process_finds_it_free(brief: bool) -> None:
    """A brief one at the end of what its thread was doing, a long one at once; the forking thread's own stays taken."""
    turns, own, state, stop = Turns(brief), Turns(), [0], threading.Event()

    def work() -> None:
        while not stop.is_set():
            with turns.taken():
                state[0] = 1
                time.sleep(0.002)
                state[0] = 0

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            with own.taken():
                child = os.fork()
                if not child:
                    signal.alarm(20)
                    with turns.taken():
                        os._exit(own._depth != 1 or (brief and state[0]))
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
