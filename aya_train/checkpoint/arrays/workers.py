"""A few threads that read or write ahead."""

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar('T')
R = TypeVar('R')

MANY = 100  # results that take no memory
COUNT = 2  # blocks that are read, or arrays that are written, at a time; memory grows with it


def ahead(function: Callable[[T], R], items: Iterable[T], *, waiting: int = COUNT) -> Iterator[R]:
  """`map` in COUNT threads, results in order, at most `waiting` of them begun and not taken.

  (De)compression releases Python's lock, so that other processors take part. An error of `function`
  is raised where its result would come; what has not begun by then never does.
  """
  pending: collections.deque[concurrent.futures.Future[R]] = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
    try:
      for item in items:
        if len(pending) == waiting:
          yield pending.popleft().result()
        pending.append(pool.submit(function, item))
      while pending:
        yield pending.popleft().result()
    finally:
      for future in pending:
        future.cancel()
