// Where is the limit? Requests come at a growing rate, whether answered or not; ends early when one in a hundred fails.
//   k6 run -e PASSWORD=... -e RATE=2000 load-tests/stress.js
import { begin, get } from './jivs.js';

const RATE = Number(__ENV.RATE || 1000);

export const options = {
  scenarios: {
    stress: {
      executor: 'ramping-arrival-rate',
      startRate: Math.ceil(RATE / 20),
      timeUnit: '1s',
      preAllocatedVUs: 100,
      maxVUs: 1000,
      stages: [0.25, 0.5, 0.75, 1].flatMap((share) => [
        { duration: __ENV.RAMP || '1m', target: Math.ceil(RATE * share) },
        { duration: __ENV.HOLD || '2m', target: Math.ceil(RATE * share) },
      ]),
    },
  },
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
  thresholds: {
    'http_req_failed{kind:api}': [{ threshold: 'rate<0.01', abortOnFail: true, delayAbortEval: '10s' }],
    dropped_iterations: ['count==0'],
  },
};

export function setup() {
  return begin({ extracts: false });
}

export default function (session) {
  get(session, '/extractions?page=0&size=20', 'list');
}
