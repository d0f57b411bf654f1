"""The address of an endpoint: what is wrong with it, and how it is shown."""

import ssl
import urllib.parse


class EndpointError(ValueError):
  """The endpoint takes nothing of this run: key, model, address or quota; or it was long away."""


def shown(url: str) -> str:
  """An address without user, password and query, which may be secrets."""
  try:
    parts = urllib.parse.urlsplit(url)
    port = f':{parts.port}' if parts.port else ''
  except ValueError:
    return ''
  host = f'[{parts.hostname}]' if ':' in (parts.hostname or '') else parts.hostname or ''
  return urllib.parse.urlunsplit((parts.scheme, f'{host}{port}', parts.path, '', ''))


def check_address(url: str) -> str:
  """An address that can be asked; EndpointError says what is wrong with it."""
  parts = urllib.parse.urlsplit(url)
  if parts.scheme not in ('http', 'https') or not parts.hostname:
    raise EndpointError(f'base_url must be http(s)://HOST/v1, got {shown(url)!r}')
  if parts.username or parts.password or parts.query:
    raise EndpointError(
      f'base_url {shown(url)!r} has a user, a password or a query: the key comes from the '
      'environment only (--key_env)'
    )
  return url


def tls_advice(error: BaseException | None) -> str:
  """What to do about a refusal of TLS that no waiting mends, '' of anything else."""
  while error is not None:
    if isinstance(error, ssl.SSLCertVerificationError):
      return 'its certificate is not trusted; SSL_CERT_FILE names the certificates that are'
    if isinstance(error, ssl.SSLError) and error.reason == 'WRONG_VERSION_NUMBER':
      return 'a port without TLS? Then --base_url begins with http://'
    error = error.__cause__ or error.__context__
  return ''
