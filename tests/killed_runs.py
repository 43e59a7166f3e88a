"""Runs in processes that are killed: start them, and compare what they leave."""

import os
import sys


def same(one, other, names):
    """Assert that files of two folders are equal, byte for byte."""
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def in_a_child(work):
    """Run a function in a forked process; returns how that ended, as `os.waitpid` has it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]
