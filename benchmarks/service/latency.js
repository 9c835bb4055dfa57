// 50 % lists, 40 % gets, 10 % creates of extractions. MODE: open (RATE requests/s), think (100 users, 0.5 s), busy (100 users).
import http from "k6/http";
import { check, sleep } from "k6";

const base = `${__ENV.BASE_URL}/api/v1/extractions`;
const params = { headers: { Authorization: `Bearer ${__ENV.TOKEN}`, "Content-Type": "application/json" } };
const duration = __ENV.DURATION || "20s";
const scenarios = {
  open: { executor: "constant-arrival-rate", rate: Number(__ENV.RATE || 1000), timeUnit: "1s", duration, preAllocatedVUs: 50, maxVUs: 400 },
  think: { executor: "constant-vus", vus: 100, duration },
  busy: { executor: "constant-vus", vus: 100, duration },
};

export const options = {
  scenarios: { [__ENV.MODE]: scenarios[__ENV.MODE] },
  summaryTrendStats: ["med", "p(95)", "p(99)", "max"],
  discardResponseBodies: true,
};

export default function () {
  const dice = Math.random();
  let answer;
  if (dice < 0.5) {
    answer = http.get(`${base}?limit=20&cursor=${Math.floor(Math.random() * 900)}`, params);
  } else if (dice < 0.9) {
    answer = http.get(`${base}/${1 + Math.floor(Math.random() * Number(__ENV.EXTRACTIONS))}`, params);
  } else {
    const body = JSON.stringify({ name: `${__VU}-${__ITER}-${Math.random()}`, sourceId: 1, tables: ["t"] });
    answer = http.post(base, body, params);
  }
  check(answer, { answered: (one) => one.status === 200 || one.status === 201 });
  if (__ENV.MODE === "think") sleep(0.5);
}

export function handleSummary(data) {
  const times = data.metrics.http_req_duration.values;
  const out = {
    requests_per_second: data.metrics.http_reqs.values.rate,
    median_ms: times.med,
    p95_ms: times["p(95)"],
    p99_ms: times["p(99)"],
    max_ms: times.max,
    failed: data.metrics.http_req_failed.values.rate,
    dropped: data.metrics.dropped_iterations ? data.metrics.dropped_iterations.values.count : 0,
  };
  return { stdout: `${JSON.stringify(out)}\n` };
}
