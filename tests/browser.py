"""A headless Chromium for tests of pages; they are skipped where there is none."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
NARROW = {'width': 420, 'height': 900}


def program() -> str:
  """A browser of this machine; skips the test where there is none."""
  found = os.environ.get('AYA_TRAIN_BROWSER') or next(filter(None, map(shutil.which, _NAMES)), None)
  if found is None:
    pytest.skip('no Chromium on this machine (Debian: apt-get install chromium)')
  return found


@contextlib.contextmanager
def opened(**settings: Any) -> Iterator[Any]:
  """A playwright browser context without a network; an error of a page's script fails the test."""
  name = program()
  api = pytest.importorskip('playwright.sync_api', reason='playwright (the extra test) is missing')
  with api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=name, args=['--no-sandbox'])
    context = browser.new_context(offline=True, accept_downloads=True, **settings)
    errors: list[str] = []
    context.on('weberror', lambda error: errors.append(str(error.error)))
    context.on('console', lambda said: errors.append(said.text) if said.type == 'error' else None)
    yield context
    browser.close()
  assert errors == []


def overflows(page: Any) -> bool:
  """Whether a page is wider than its window."""
  return page.evaluate('document.documentElement.scrollWidth > window.innerWidth')
