"""The speed of descant, beside a peer that is measured in the same run. One function for each row of the table.

    descant bench --compare transformers --json FILE

A new row is a function ``Bench -> list[Line]`` and an entry of ``rows.ROWS``.
"""

from typing import Literal

Shape = Literal["bench-tiny", "0.5b", "nano"]
OfficialShape = Literal["7b", "3b"]
Peer = Literal["transformers"]
