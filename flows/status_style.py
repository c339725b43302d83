"""The status page's style sheet: system fonts, light and dark after the reader's own setting."""

STYLE = """
:root { color-scheme: light dark;
  --ground: #f6f7f9; --paper: #ffffff; --ink: #1c2430; --soft: #5d6b7e; --line: #e1e6ec;
  --value: #1664c0; --band: #1664c026; --reference: #7a8699; --mark: #a2570b;
  --ok: #1a7f4b; --shifted: #a2570b; --faulty: #8b3fc0; --degraded: #c62f2f; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #12161c; --paper: #1a2029; --ink: #e4e9f0; --soft: #96a3b5; --line: #2b3440;
  --value: #6db1ff; --band: #6db1ff2b; --reference: #8793a5; --mark: #eba75b;
  --ok: #56c78c; --shifted: #eba75b; --faulty: #c893f0; --degraded: #ff7b74; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header { display: flex; justify-content: space-between; align-items: baseline; flex-wrap: wrap; gap: 0 24px;
  margin-bottom: 18px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -.01em; }
h1 a { color: inherit; text-decoration: none; }
h1 span { color: var(--soft); font-weight: 400; }
h2 { font-size: 16px; margin: 0 0 12px; }
h2 small { color: var(--soft); font-size: 13px; font-weight: 400; margin-left: 8px; }
h3 { font-size: 13px; margin: 0; color: var(--soft); font-weight: 500; }
p { margin: 0; }
header p, .card p, .quiet, .legend { color: var(--soft); font-size: 13px; }
.cards { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); margin: 0 0 12px; }
.card, section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; }
.card { border-top: 3px solid var(--line); }
.card p.big { font-size: 24px; line-height: 1.35; color: var(--ink); font-variant-numeric: tabular-nums; }
.card.ok { border-top-color: var(--ok); } .card.ok p.big { color: var(--ok); }
.card.shifted { border-top-color: var(--shifted); } .card.shifted p.big { color: var(--shifted); }
.card.faulty { border-top-color: var(--faulty); } .card.faulty p.big { color: var(--faulty); }
.card.degraded { border-top-color: var(--degraded); } .card.degraded p.big { color: var(--degraded); }
.signs { margin: 0 0 18px; }
.reasons { margin: 0 0 6px; padding-left: 20px; color: var(--soft); font-size: 14px; }
section { margin-bottom: 18px; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg .band { fill: var(--band); }
svg .reference { stroke: var(--reference); stroke-width: 1.5; stroke-dasharray: 6 4; }
svg line.mark { stroke: var(--mark); stroke-width: 1.5; }
svg text.mark { fill: var(--mark); font-weight: 600; }
svg line.step { stroke: var(--mark); stroke-width: 1.5; }
svg text.step { font-size: 10px; }
svg .value { fill: none; stroke: var(--value); stroke-width: 2.2; stroke-linejoin: round; }
svg circle { fill: var(--value); stroke: var(--paper); stroke-width: 1.5; }
svg circle.expected { fill: var(--paper); stroke: var(--value); }
svg line.expected { stroke: var(--value); stroke-width: 1.2; stroke-dasharray: 2 3; }
svg .moved { fill: var(--mark); }
svg .named { stroke: var(--ink); stroke-width: 1.6; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; margin-top: 8px; }
.legend span::before { content: ""; display: inline-block; width: 22px; margin-right: 7px; vertical-align: middle;
  border-top: 2.5px solid var(--value); }
.legend .band::before { border-top: 10px solid var(--band); }
.legend .expected::before { border-top: 2px dotted var(--value); }
.legend .reference::before { border-top: 2px dashed var(--reference); }
.legend .mark::before { border-top: 0; border-left: 2px solid var(--mark); height: 12px; width: 2px; }
.legend .step::before { border-top: 0; border-left: 2px solid var(--mark); height: 6px; width: 2px; }
.legend .moved::before { border: 0; height: 12px; background: linear-gradient(90deg, transparent, var(--mark)); }
.legend .named::before { border: 1.6px solid var(--ink); border-radius: 2px; height: 12px; width: 14px; }
details summary { cursor: pointer; }
.wide { overflow-x: auto; margin-top: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 500; }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child, td:last-child, td:nth-child(2), td:nth-child(5) { white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
td:nth-child(6) { color: var(--soft); min-width: 260px; overflow-wrap: anywhere; }
.segments tbody th { color: var(--ink); }
.segments tbody tr:last-child th { border-bottom: 0; }
.segments td:nth-child(n) { color: inherit; min-width: 0; white-space: nowrap; }
.segments .named th, .segments .named td:nth-child(n) { color: var(--mark); font-weight: 600; }
.links { display: flex; flex-wrap: wrap; gap: 6px 24px; margin: 0; padding: 0; list-style: none; }
a { color: var(--value); }
time { white-space: nowrap; }
.narrow { display: none; }
@media (max-width: 640px) {
  body { padding: 16px; }
  .cards { grid-template-columns: 1fr 1fr; gap: 10px; }
  .card, section { padding: 12px 14px; }
  .card:last-child:nth-child(odd) { grid-column: span 2; }
  .card p.big { font-size: 20px; }
  .broad { display: none; }
  .narrow { display: block; }
  thead { display: none; }
  tr { display: flex; flex-wrap: wrap; gap: 0 14px; padding: 8px 0; border-bottom: 1px solid var(--line); }
  td { border: 0; padding: 0; }
  td:empty { display: none; }
  td:first-child, td:nth-child(2), td:last-child { color: var(--soft); order: 1; }
  td:nth-child(3) { font-weight: 600; }
  td:nth-child(6) { flex-basis: 100%; }
  .segments thead { display: table-header-group; }
  .segments tr { display: table-row; }
  .segments td:nth-child(n) { padding: 6px 14px 6px 0; font-weight: 400; } }
"""
