"""A batch as files: one page that works offline, and tasks for Label Studio."""

import base64
import hashlib
import json
from collections.abc import Sequence

import jinja2
import markupsafe
from etils import epath

from aya_train.annotation import batches, label_studio
from aya_train.tasks import storage

_TITLES = {batches.PAIRS: 'Which answer is better?', batches.DATA: 'Is this good data?'}
# So that no text ends the element it stands in, and none holds a line end of old JavaScript.
_ESCAPES = str.maketrans({c: f'\\u{ord(c):04x}' for c in '<>&\u2028\u2029'})


def write(made: Sequence[batches.Batch], folder: epath.PathLike) -> list[epath.Path]:
  """Writes the page of each batch, its Label Studio tasks and their configuration.

  Returns:
    The pages.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  pages = []
  for batch in made:
    name = f'{batch.mode}_{batch.language or "all"}'
    pages.append(folder / f'{name}.html')
    storage.write_atomically(pages[-1], page(batch))
    tasks = json.dumps(label_studio.tasks(batch), ensure_ascii=False, indent=1)
    storage.write_atomically(
      folder / f'{name}.label_studio.json', tasks.encode('utf-8', 'backslashreplace')
    )
    storage.write_atomically(folder / f'{name}.label_studio.xml', label_studio.config(batch))
  return pages


def page(batch: batches.Batch) -> str:
  """One HTML file that asks no network and runs no script but its own, whatever texts hold."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('aya_train.annotation', 'templates'), autoescape=True
  )

  def part(name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]

  style, script = part('annotate.css'), part('annotate.js')
  language = batches.described(batch.language)
  title = _TITLES[batch.mode] + (f' {language}' if language else '')
  return environment.get_template('annotate.html.jinja').render(
    title=title,
    mode=batch.mode,
    style=markupsafe.Markup(style),
    style_digest=_digest(style),
    script=markupsafe.Markup(script),
    script_digest=_digest(script),
    batch=markupsafe.Markup(embedded(_shown(batch))),
  )


def _shown(batch: batches.Batch) -> dict[str, object]:
  items = []
  for item in batch.items:
    values = item.to_page()
    if batch.mode == batches.DATA:
      hidden = batches.revealed(item.key)
      values['about'] = ', '.join(dict.fromkeys((hidden['source'], hidden['task'])))
    items.append(values)
  return {'format': batches.FORMAT, 'mode': batch.mode, 'batch': batch.id, 'items': items}


def embedded(values: object) -> str:
  """JSON that may stand inside <script>: ASCII, without '<', '>' and '&'."""
  return json.dumps(values).translate(_ESCAPES)


def _digest(text: str) -> str:
  return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
