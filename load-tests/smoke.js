// After a deployment: one user, one whole extraction, everything as promised.
//   k6 run -e PASSWORD=... -e SOURCE_URL=... -e TABLES=... load-tests/smoke.js
import { check } from 'k6';
import { begin, browse, extract } from './jivs.js';
import { read } from './monitor.js';

export const options = { vus: 1, iterations: 1, thresholds: { checks: ['rate==1'] } };

export function setup() {
  return begin({ extracts: true });
}

export default function (session) {
  const before = read().sums;
  const state = extract(session);
  if (state !== 'COMPLETED') console.error(`extraction: ${state}`);
  browse(session);
  check(read().sums, {
    'metrics: every one of the guide is there': (sums) =>
      ['extraction_records_total', 'extraction_errors_total', 'extraction_duration_count', 'extraction_cache_hits',
        'extraction_cache_misses', 'hikaricp_connections', 'hikaricp_connections_active'].every((name) => name in sums),
    'metrics: no row failed': (sums) => sums.extraction_errors_total === before.extraction_errors_total,
  });
}
