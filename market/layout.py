"""Columns of the arrays in which a shard keeps its state, so that compiled and plain code read the same numbers."""

from __future__ import annotations

from typing import Final

from market.interval import INTERVALS

LENGTHS: Final = tuple(i.length_us for i in INTERVALS)
LEVELS: Final = len(LENGTHS)
DAY_LEVEL: Final = LEVELS - 1

NEVER: Final = 2**62
"""Later than any time, larger than any threshold; negated: earlier than any time, "there is none"."""

# --- one row a symbol -------------------------------------------------------------------------------------------------
# The newest run of accepted ids (contiguous ids only). Without one LAST is -2 and FIRST is NEVER, so no id extends or repeats it.
LAST: Final = 0  # its last id
FIRST: Final = 1  # its first id
LAST_TIME: Final = 2  # event time of the last id
FIRST_TIME: Final = 3
RUN_MIN: Final = 4  # least event time in the run
RUN_MAX: Final = 5
# The newest covered stretch [COVERED_FROM, COVERED_TO], instants inclusive; COVERED_TO is max `to_us`, or -NEVER.
COVERED_FROM: Final = 6
COVERED_TO: Final = 7
# Thresholds at which the plain code must look (market/irregular.py sets them).
NEXT_GAP: Final = 8  # least max `to_us` at which a hole becomes a gap
CLEAN_FROM: Final = 9  # a closed window that starts here or later is complete
BRIDGE_LOW: Final = 10  # a time ≤ this in the newest run may bridge an uncovered stretch
BRIDGE_HIGH: Final = 11  # a time ≥ this likewise
NEXT_CLOSE: Final = 12  # least window end of an open candle
NEXT_EVICT: Final = 13  # least window end of a closed candle in state
NEWEST: Final = 14  # newest accepted event time (kept where ids jump)
FULL: Final = 15  # 1: a sum has come near its limit
HEADS: Final = 16  # six: newest candle of each interval, then linked by NEXT in falling window order; -1 ends
DELTA_HEADS: Final = 22  # six: deltas of the record at hand
SYMBOL_WIDTH: Final = 28

# --- one row a candle, integers ---------------------------------------------------------------------------------------
START: Final = 0
NEXT: Final = 1
SYMBOL: Final = 2
LEVEL: Final = 3
COUNT: Final = 4
OPEN_TIME: Final = 5
OPEN_ID: Final = 6
CLOSE_TIME: Final = 7
CLOSE_ID: Final = 8
REVISION: Final = 9
CAUSE: Final = 10  # offset of the last record that changed the row
UPDATED: Final = 11  # receive time of that record
CLOSED: Final = 12
COMPLETE: Final = 13
DIRTY: Final = 14  # 1: in this batch's list of changed candles
CHANGE: Final = 15  # market.schema.Change
OPEN_TAIL: Final = 16  # of ids that are no numbers (market/ids.py)
CLOSE_TAIL: Final = 17
CANDLE_WIDTH: Final = 18

# --- one row a candle, decimals: low and high words -------------------------------------------------------------------
OPEN: Final = 0
HIGH: Final = 2
LOW: Final = 4
CLOSE: Final = 6
VOLUME: Final = 8
QUOTE: Final = 10
BUY_VOLUME: Final = 12
BUY_QUOTE: Final = 14
DECIMAL_WIDTH: Final = 16

# --- progress of a walk -----------------------------------------------------------------------------------------------
AT_TRADE: Final = 0  # next trade
AT_SPECIAL: Final = 1  # next record that is not a frame
AT_SYMBOL: Final = 2  # next symbol of that marker
FREE: Final = 3  # free candle slots
CHANGED: Final = 4  # candles in the list of changed ones
UNSETTLED: Final = 5  # candles in the list of those whose completeness is not known
SEEN: Final = 6  # ids in the table of seen ids
TRADE_END: Final = 7  # end of AT_TRADE's record
DECIDED: Final = 8  # where it equals TRADE_END, `accepted` says already which trades of the record to fold
DAY_DELTAS: Final = 9  # deltas of whole days since that was last asked
PROGRESS_WIDTH: Final = 10

# --- the rules, as numbers --------------------------------------------------------------------------------------------
LATENESS: Final = 0
HORIZON: Final = 1
DEDUP_HORIZON: Final = 2
CONTIGUOUS: Final = 3

# --- what a walk stops for --------------------------------------------------------------------------------------------
DONE: Final = 0
IRREGULAR_TRADES: Final = 1  # AT_TRADE: first trade of the record
IRREGULAR_MARKER: Final = 2  # AT_SPECIAL, AT_SYMBOL
OTHER_SPECIAL: Final = 3  # AT_SPECIAL: a record that is neither a frame nor a marker
NO_ROOM: Final = 4  # for AT_TRADE's record in the candle pool or the table of seen ids
