"""Which process of this machine is meant: its number and its beginning, as numbers come again."""

import os


def began(pid: int) -> str:
  """When a process began, in the machine's own count; '' if there is none or it is not told."""
  return _stat(pid)[1]


def lives(pid: int, began: str) -> bool | None:
  """Whether a process of this machine lives; None if that cannot be seen, or it is suspended.

  Args:
    pid: its number.
    began: what the function of that name gave for it.
  """
  state, found = _stat(pid)
  if not state:  # some machines hide the processes of other users, some have no such files
    return None if _exists(pid) else False
  if found != began or state in ('Z', 'X'):
    return False
  return None if state in ('T', 't') else True


def machine() -> str:
  """This machine since it was last started, and the space that its process numbers belong to.

  Containers of one machine have process numbers of their own. '' where the system does not tell.
  """
  try:
    with open('/proc/sys/kernel/random/boot_id', encoding='utf-8') as file:
      return f'{file.read().strip()} {os.readlink("/proc/self/ns/pid")}'
  except OSError:
    return ''


def _stat(pid: int) -> tuple[str, str]:
  """State and time of the beginning of a process, in the kernel's words; '' if there is none."""
  try:
    with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
      fields = file.read().rpartition(')')[2].split()
    return fields[0], fields[19]
  except (OSError, IndexError):
    return '', ''


def _exists(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:  # somebody else's
    pass
  return True
