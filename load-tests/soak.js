// Hours of ordinary work: nothing fails, nothing gets slower, memory does not grow once it is warm.
//   k6 run -e PASSWORD=... -e SOURCE_ID=1 -e TABLES=public.orders -e DURATION=4h load-tests/soak.js
import { Gauge } from 'k6/metrics';
import exec from 'k6/execution';
import { begin, browse, extract } from './jivs.js';
import { read } from './monitor.js';

const RUNNERS = Number(__ENV.RUNNERS || 2);
const WARM_SECONDS = Number(__ENV.WARM_SECONDS || 600);
const growth = new Gauge('jivs_memory_growth_percent');
let warm = null;

export const options = {
  vus: Number(__ENV.USERS || 30),
  duration: __ENV.DURATION || '4h',
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
  thresholds: {
    checks: ['rate==1'],
    'http_req_failed{kind:api}': ['rate==0'],
    'http_req_duration{kind:api}': ['p(95)<=220', 'p(99)<=400'],
    jivs_memory_growth_percent: ['value<=20'],
  },
};

export function setup() {
  return { session: begin({ extracts: true }), at: Date.now() };
}

export default function ({ session, at }) {
  if (exec.vu.idInTest > RUNNERS) {
    browse(session);
    return;
  }
  const state = extract(session);
  if (state !== 'COMPLETED') console.error(`extraction: ${state}`);
  if (exec.vu.idInTest === 1 && Date.now() - at > WARM_SECONDS * 1000) {
    const memory = read().sums.jivs_process_resident_memory_bytes;
    warm = warm || memory;
    growth.add(100 * (memory / warm - 1));
  }
}
