"""What a simulated venue lists: symbols, their decimals, and where their prices and ids begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Well-known assets with a plausible price in dollars, most traded first.
_ASSETS: Final = (
    "BTC:61837.63 ETH:1774.13 SOL:142.85 XRP:0.5913 DOGE:0.10231 ADA:0.3374 LTC:58.42 LINK:10.381 AVAX:21.54 DOT:4.513 BCH:334.1 "
    "ATOM:4.722 UNI:5.913 ETC:18.64 XLM:0.09713 NEAR:3.871 FIL:3.597 APT:5.832 ARB:0.5412 OP:1.382 INJ:16.47 SUI:0.9018 AAVE:101.3 "
    "ALGO:0.1248 GRT:0.1493 SAND:0.2511 MANA:0.2633 AXS:4.618 CRV:0.2747 SNX:1.318 COMP:41.27 MKR:1893.0 YFI:4871.0 SUSHI:0.5512 "
    "ENJ:0.1427 CHZ:0.05531 BAT:0.1618 ZRX:0.2897 KSM:18.92 DASH:22.83 ZEC:36.41 XTZ:0.6514 EOS:0.4712 MINA:0.3921 FLOW:0.5287 "
    "IMX:1.137 LDO:1.012 RUNE:3.487 STX:1.297 TIA:4.973"
)


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol of a venue.

    `canonical`: `BTC/USDT`. Prices are whole numbers of 10^-price_decimals, quantities of 10^-lot_decimals. `first_price`,
    `first_id`: where the generator begins. `weight`: its share of the venue's trades, relative to the others'.
    """

    canonical: str
    price_decimals: int
    lot_decimals: int
    first_price: int
    first_id: int
    weight: float = 1.0
    is_quiet: bool = False

    @property
    def base(self) -> str:
        """The asset that is traded."""
        return self.canonical.partition("/")[0]

    @property
    def quote(self) -> str:
        """The asset it is paid in."""
        return self.canonical.partition("/")[2]


def default_symbols(quote: str, count: int) -> list[str]:
    """Return `count` canonical symbols against one quote asset; beyond the well-known ones `S51`, `S52`, … are made up."""
    names = [pair.partition(":")[0] for pair in _ASSETS.split()]
    names += [f"S{number}" for number in range(len(names) + 1, count + 1)]
    return [f"{name}/{quote}" for name in names[:count]]


def listing_of(canonical: str, rank: int, *, lot_digits: int, weight: float, is_quiet: bool) -> Listing:
    """Return what is listed for a symbol.

    Args:
        canonical: `BTC/USDT`.
        rank: its position; decides its first trade id, so that no two symbols have the same ids.
        lot_digits: decimals of price and quantity together; the venue's precision of quote volumes is then enough for them.
        weight: share of trades.
        is_quiet: trades rarely.
    """
    prices = dict(pair.split(":") for pair in _ASSETS.split())
    whole, _, fraction = prices.get(canonical.partition("/")[0], "3.141").partition(".")
    decimals = 2 if len(whole) >= 2 else min(5, len(fraction) + 1)
    first_price = int(whole + fraction[:decimals].ljust(decimals, "0"))
    lot_decimals = min(8, lot_digits - decimals)
    return Listing(canonical, decimals, lot_decimals, first_price, 1_000_000 + rank * 400_000_007, weight, is_quiet)
