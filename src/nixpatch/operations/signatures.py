"""Privileges and signatures that belong to the bytes of a file, and do not survive an edit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

_BESIDE: Final = (
    ("{stem}.chk", "NSS"),  # shlibsign(1) of NSS
    ("{name}.hmac", "FIPS mode"),
    (".{name}.hmac", "FIPS mode"),  # fipshmac of Red Hat, for OpenSSL, libgcrypt and GnuTLS
)


def text_of_dropped(dropped: Sequence[str]) -> str:
    """Describe privileges and signatures that an edited file has lost."""
    return f"{', '.join(dropped)}: granted to the old contents, and removed; grant it again if you need it"


def broken_signatures(path: str) -> Iterator[str]:
    """Yield a line for each file beside a library that holds a signature of its bytes.

    NSS checks the signatures of its own libraries (libsoftokn3.so, libfreeblpriv3.so, libnssdbm3.so) in FIPS
    mode: https://firefox-source-docs.mozilla.org/security/nss/legacy/an_overview_of_nss_internals/.
    """
    directory, name = os.path.split(path)
    for pattern, who in _BESIDE:
        beside = pattern.format(name=name, stem=name.partition(".so")[0])
        if beside != name and os.path.isfile(os.path.join(directory, beside)):
            yield f"an edited file no longer fits its signature {beside} ({who}): sign it again"
