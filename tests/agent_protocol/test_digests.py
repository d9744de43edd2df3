from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from agent_protocol import digests


@given(data=st.binary(max_size=300), key=st.binary(max_size=200))
def test_they_are_what_the_standard_library_says(data: bytes, key: bytes) -> None:
    assert digests.sha256(data) == hashlib.sha256(data).digest()
    assert digests.sha256_hex(data) == hashlib.sha256(data).hexdigest()
    assert digests.hmac_sha256(key, data) == hmac.new(key, data, hashlib.sha256).digest()
