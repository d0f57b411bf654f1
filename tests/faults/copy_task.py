"""The SeqIO task `tests.copy`, for commands in processes of their own and in children."""

import seqio

from tests import test_train_loop

if 'tests.copy' not in seqio.TaskRegistry.names():
  test_train_loop.register_task()
