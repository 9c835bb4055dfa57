// Reads the service's metrics: from /actuator/prometheus, or, where several processes work, from Prometheus (PROMETHEUS_URL).
import http from 'k6/http';
import { fail, sleep } from 'k6';
import { BASE_URL } from './jivs.js';
import { totals } from './acceptance.js';

const PROMETHEUS = (__ENV.PROMETHEUS_URL || '').replace(/\/+$/, '');
const SCRAPE_SECONDS = Number(__ENV.SCRAPE_SECONDS || 15);
const NAMES = 'extraction_records_total|extraction_errors_total|extraction_cache_hits|extraction_cache_misses|jivs_process_resident_memory_bytes';
const QUIET = { tags: { name: 'metrics', kind: 'monitor' } };

function ask(query) {
  const answer = http.get(`${PROMETHEUS}/api/v1/query?query=${encodeURIComponent(query)}`, QUIET);
  if (answer.status !== 200) fail(`${PROMETHEUS} does not answer: ${answer.status} ${answer.error}. Set PROMETHEUS_URL.`);
  return answer.json('data.result');
}

// {sums, pool}: as acceptance.totals.
export function read() {
  if (!PROMETHEUS) {
    const answer = http.get(`${BASE_URL}/actuator/prometheus`, QUIET);
    if (answer.status !== 200) fail(`${BASE_URL}/actuator/prometheus: ${answer.status} ${answer.error}`);
    return totals(answer.body);
  }
  const sums = {};
  for (const { metric, value } of ask(`sum by (__name__) ({__name__=~"${NAMES}", job=~"jivs-.*"})`)) {
    sums[metric.__name__] = Number(value[1]);
  }
  const pool = ask('max(extraction_pool_active / extraction_pool_max)');
  return { sums, pool: pool.length ? Number(pool[0].value[1]) : NaN };
}

// The last reading: Prometheus knows what happened one scrape later.
export function readLast() {
  if (PROMETHEUS) sleep(SCRAPE_SECONDS + 5);
  return read();
}
