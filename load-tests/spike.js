// A crowd comes at once and leaves again: nothing fails, and afterwards all is as fast as before.
//   k6 run -e PASSWORD=... -e CROWD=500 load-tests/spike.js
import { begin, browse } from './jivs.js';

const CALM = Number(__ENV.CALM || 10);
const CROWD = Number(__ENV.CROWD || 300);
const HOLD = Number(__ENV.HOLD_SECONDS || 60);

function phase(exec, vus, start) {
  return { executor: 'constant-vus', exec, vus, startTime: `${start}s`, duration: `${HOLD}s`, gracefulStop: '10s', tags: { phase: exec } };
}

export const options = {
  scenarios: { calm: phase('calm', CALM, 0), crowd: phase('crowd', CROWD, HOLD), after: phase('after', CALM, 2 * HOLD + 10) },
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
  thresholds: {
    'http_req_failed{kind:api}': ['rate==0'],
    'http_req_duration{phase:calm}': ['p(95)<=220'],
    'http_req_duration{phase:crowd}': ['p(99)<=5000'],
    'http_req_duration{phase:after}': ['p(95)<=220'],
  },
};

export function setup() {
  return begin({ extracts: false });
}

export function calm(session) {
  browse(session);
}

export function crowd(session) {
  browse(session);
}

export function after(session) {
  browse(session);
}
