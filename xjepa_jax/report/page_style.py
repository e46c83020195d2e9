"""The style of a report's page: readable on a phone and on paper, in a light or dark scheme."""

from __future__ import annotations

CSS = """
:root {
  color-scheme: light dark;
  --ink: #1c2128; --faint: #59636e; --paper: #ffffff; --shade: #f4f6f8; --line: #d5dae0;
  --good: #00704a; --bad: #a3280f; --bad-shade: #fdf0ec; --good-shade: #edf7f2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ec; --faint: #a2abb5; --paper: #15191e; --shade: #1e242b; --line: #3a424b;
    --good: #56c596; --bad: #ff9d85; --bad-shade: #33201b; --good-shade: #182a22;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 68rem;
  font: 1rem/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 {
  font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line);
}
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.faint, figcaption { color: var(--faint); font-size: .92rem; }
nav ul {
  list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .8rem 0 0;
  padding: 0;
}
a { color: inherit; text-underline-offset: .2em; }
a:focus-visible, .scroll:focus-visible, summary:focus-visible {
  outline: 3px solid var(--good); outline-offset: 2px;
}
.verdict {
  margin: 1.2rem 0; padding: .7rem 1rem; border-left: 5px solid var(--good);
  background: var(--good-shade); max-width: none;
}
.verdict.bad { border-color: var(--bad); background: var(--bad-shade); }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td {
  padding: .32rem .8rem; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top;
}
tr > :first-child { padding-left: .2rem; }
.results td:first-child { padding-left: .8rem; }
.results tbody tr:not(:last-child) td { border-bottom: none; padding-bottom: .1rem; }
thead th {
  font-size: .85rem; color: var(--faint); border-bottom: 2px solid var(--line);
  white-space: nowrap;
}
tbody th { font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.best { font-weight: 700; color: var(--good); }
.results td { white-space: nowrap; }
td code { overflow-wrap: anywhere; font-size: .88em; }
figure { margin: .8rem 0; }
figure .scroll { border: 1px solid var(--line); border-radius: 4px; background: #fff; }
figure img { display: block; height: auto; max-width: 100%; margin: 0 auto; }
details { margin: .6rem 0; }
summary { cursor: pointer; padding: .2rem 0; }
dl { margin: .4rem 0; font-size: .92rem; }
dt { font-weight: 600; margin-top: .5rem; }
dd { margin: 0; color: var(--faint); max-width: 46rem; }
@media print {
  body { max-width: none; }
  figure, table { break-inside: avoid; }
  figure img { min-width: 0; }
  nav { display: none; }
}
"""
