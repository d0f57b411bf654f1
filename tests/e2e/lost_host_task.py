"""A SeqIO task for runs of the command line on several hosts."""

from tests import test_train_loop

test_train_loop.register_task()
