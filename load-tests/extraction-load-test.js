// The load test of the deployment guide. It ends with the acceptance table, and with exit code 99 where a line is missed:
//   export PASSWORD=... SOURCE_URL=postgresql://reader@db.example/sales SOURCE_PASSWORD=... TABLES=public.orders
//   k6 run --vus 100 --duration 10m load-tests/extraction-load-test.js
// The first RUNNERS users create, start, poll and read extractions, one after the other; the rest browse.
import { Gauge, Trend } from 'k6/metrics';
import exec from 'k6/execution';
import { begin, browse, extract } from './jivs.js';
import { read, readLast } from './monitor.js';
import { between, table } from './acceptance.js';

const NOT_MEASURED = { cache: -1, errors: 999 }; // each misses its threshold
const RUNNERS = Number(__ENV.RUNNERS || 2); // whose runs take 85 to 90 % of a source's connections, as nothing else is set

const throughput = new Gauge('jivs_throughput');
const cache = new Gauge('jivs_cache_hit_rate');
const errors = new Gauge('jivs_error_rate');
const pool = new Trend('jivs_pool_utilization');

export const options = {
  vus: 100,
  duration: '10m',
  setupTimeout: '2m',
  teardownTimeout: '2m',
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
  thresholds: {
    'http_req_duration{kind:api}': ['p(95)<=220', 'p(99)<=400'],
    'http_req_failed{kind:api}': ['rate==0'],
    checks: ['rate==1'],
    jivs_throughput: ['value>=18000'],
    jivs_cache_hit_rate: ['value>=60'],
    jivs_pool_utilization: ['avg>=70', 'avg<=95'],
    jivs_error_rate: ['value<1.5'],
  },
};

export function setup() {
  return { session: begin({ extracts: true }), before: read().sums, at: Date.now() };
}

function measured(value, missing) {
  return Number.isNaN(value) ? missing : value;
}

export default function ({ session }) {
  const user = exec.vu.idInTest;
  if (user > RUNNERS) {
    browse(session);
    return;
  }
  const watch = user === 1 ? () => pool.add(100 * measured(read().pool, 0)) : () => {};
  const state = extract(session, watch);
  if (state !== 'COMPLETED') console.error(`extraction of user ${user}: ${state}`);
}

export function teardown({ before, at }) {
  const found = between(before, readLast().sums, (Date.now() - at) / 1000);
  throughput.add(found.throughput);
  cache.add(measured(found.cache, NOT_MEASURED.cache));
  errors.add(measured(found.errors, NOT_MEASURED.errors));
}

export function handleSummary({ metrics }) {
  const value = (name, key) => (metrics[name] ? metrics[name].values[key] : NaN);
  const latency = 'http_req_duration{kind:api}';
  const unless = (missing, found) => (found === missing ? NaN : found);
  const lines = table({
    throughput: value('jivs_throughput', 'value'),
    p95: value(latency, 'p(95)'),
    p99: value(latency, 'p(99)'),
    cache: unless(NOT_MEASURED.cache, value('jivs_cache_hit_rate', 'value')),
    pool: value('jivs_pool_utilization', 'avg'),
    errors: unless(NOT_MEASURED.errors, value('jivs_error_rate', 'value')),
  });
  const requests = value('http_reqs', 'count') || 0;
  const failed = 100 * (value('http_req_failed{kind:api}', 'rate') || 0);
  const out = { stdout: `\n${lines}\n\n${requests} requests, ${failed.toFixed(2)} % of the API's failed\n` };
  if (__ENV.SUMMARY_FILE) out[__ENV.SUMMARY_FILE] = JSON.stringify(metrics, null, 2);
  return out;
}
