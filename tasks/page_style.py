"""What the pages that maasflow writes look like alike: no network, light and dark."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --text: light-dark(#1b2330, #e4e8ef); --soft: light-dark(#5b6576, #98a3b5);
  --ground: light-dark(#f6f7f9, #12161d); --card: light-dark(#fff, #1a202a); --line: light-dark(#e1e5eb, #2c3441);
  --good: light-dark(#12794a, #5bd39a); --bad: light-dark(#b42318, #ff8f85) }
* { box-sizing: border-box } body { margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
h1 { font-size: 1.6rem; margin: 0; letter-spacing: -.01em } h2 { font-size: 1rem; margin: 2rem 0 .75rem }
p { margin: .25rem 0 } .soft { color: var(--soft) }
"""
