// The acceptance table of the deployment guide: what is measured, and the verdict on each line. No request is made here.

export const CRITERIA = [
  { key: 'throughput', title: 'Throughput (records/min)', baseline: '10,000', target: '20,000', accepted: '>= 18,000', digits: 0,
    passes: (value) => value >= 18000 },
  { key: 'p95', title: 'API Latency p95 (ms)', baseline: '450', target: '200', accepted: '<= 220', digits: 1,
    passes: (value) => value <= 220 },
  { key: 'p99', title: 'API Latency p99 (ms)', baseline: '800', target: '350', accepted: '<= 400', digits: 1,
    passes: (value) => value <= 400 },
  { key: 'cache', title: 'Cache Hit Rate (%)', baseline: '0', target: '70', accepted: '>= 60', digits: 1,
    passes: (value) => value >= 60 },
  { key: 'pool', title: 'Connection Pool Utilization (%)', baseline: '50', target: '85', accepted: '70-95', digits: 1,
    passes: (value) => value >= 70 && value <= 95 },
  { key: 'errors', title: 'Error Rate (%)', baseline: '0.5', target: '< 1', accepted: '< 1.5', digits: 2,
    passes: (value) => value < 1.5 },
];

// Sums of an exposition in Prometheus's text format, by metric name, and the busiest source's share of its pool.
export function totals(text) {
  const sums = {};
  const pools = { active: {}, max: {} };
  for (const line of text.split('\n')) {
    const found = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?\s+(\S+)/.exec(line);
    if (!found) continue;
    const [, name, labels, value] = found;
    sums[name] = (sums[name] || 0) + Number(value);
    const pool = /^extraction_pool_(active|max)$/.exec(name);
    if (pool) pools[pool[1]][labels || ''] = Number(value);
  }
  const shares = Object.keys(pools.max).filter((key) => pools.max[key] > 0)
    .map((key) => (pools.active[key] || 0) / pools.max[key]);
  return { sums, pool: shares.length ? Math.max(...shares) : NaN };
}

// What happened between two readings, `seconds` apart. NaN: nothing happened that could be measured.
export function between(before, after, seconds) {
  const grown = (name) => (after[name] || 0) - (before[name] || 0);
  const records = grown('extraction_records_total');
  const hits = grown('extraction_cache_hits');
  const lookups = hits + grown('extraction_cache_misses');
  return {
    throughput: (records / seconds) * 60,
    cache: lookups > 0 ? (100 * hits) / lookups : NaN,
    errors: records > 0 ? (100 * grown('extraction_errors_total')) / records : NaN,
  };
}

// The verdicts: {key: 'accepted' | 'MISSED' | 'NOT MEASURED'}.
export function verdicts(measured) {
  const out = {};
  for (const line of CRITERIA) {
    const value = measured[line.key];
    if (typeof value !== 'number' || Number.isNaN(value)) out[line.key] = 'NOT MEASURED';
    else out[line.key] = line.passes(value) ? 'accepted' : 'MISSED';
  }
  return out;
}

// The table as text.
export function table(measured) {
  const verdict = verdicts(measured);
  const shown = (line) => {
    const value = measured[line.key];
    return verdict[line.key] === 'NOT MEASURED' ? '-' : value.toFixed(line.digits);
  };
  const rows = [['Metric', 'Baseline', 'Target', 'Acceptance Criteria', 'Measured', 'Verdict']];
  for (const line of CRITERIA) {
    rows.push([line.title, line.baseline, line.target, line.accepted, shown(line), verdict[line.key]]);
  }
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const text = (row) => `| ${row.map((cell, column) => cell.padEnd(widths[column])).join(' | ')} |`;
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [text(rows[0]), rule, ...rows.slice(1).map(text)].join('\n');
}
