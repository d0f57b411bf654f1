"""SeqIO tasks and mixtures of aya-train; importing this package registers them all.

Commands that can do without them put that off (task_registration.py); `complete` there does it
then. Nothing is scanned, downloaded or opened.
"""

from aya_train import task_registration

if not task_registration.is_put_off():
  task_registration.complete()
