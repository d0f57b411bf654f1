"""SeqIO tasks and mixtures of aya-train; importing this package registers them all.

The list is written by hand and nothing is scanned, downloaded or opened here.
"""

from aya_train.tasks import cldr

__all__ = ['cldr']
