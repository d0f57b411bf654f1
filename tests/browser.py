"""A headless Chromium for tests of pages; they are skipped where there is none."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
NARROW = {'width': 420, 'height': 900}


def _program() -> str:
  found = os.environ.get('AYA_TRAIN_BROWSER') or next(filter(None, map(shutil.which, _NAMES)), None)
  if found is None:
    pytest.skip('no Chromium on this machine (Debian: apt-get install chromium)')
  return found


@contextlib.contextmanager
def started() -> Iterator[Any]:
  """A browser for the tests of a module; not for longer: its event loop would be in others' way."""
  name = _program()
  api = pytest.importorskip('playwright.sync_api', reason='playwright (the extra test) is missing')
  with api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=name, args=['--no-sandbox'])
    yield browser
    browser.close()


@contextlib.contextmanager
def opened(browser: Any, **settings: Any) -> Iterator[Any]:
  """A window of its own, with an empty memory and no network; errors of scripts fail the test."""
  context = browser.new_context(offline=True, accept_downloads=True, **settings)
  errors: list[str] = []
  context.on('weberror', lambda error: errors.append(str(error.error)))
  context.on('console', lambda said: errors.append(said.text) if said.type == 'error' else None)
  yield context.new_page()
  context.close()
  assert errors == []


def overflows(page: Any) -> bool:
  """Whether a page is wider than its window."""
  return page.evaluate('document.documentElement.scrollWidth > window.innerWidth')
