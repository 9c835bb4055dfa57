// What the load tests share: settings from the environment, sessions, requests, one whole extraction.
import http from 'k6/http';
import { check, fail, sleep } from 'k6';
import exec from 'k6/execution';

const KINDS = { postgresql: 'POSTGRESQL', mysql: 'MYSQL', mariadb: 'MARIADB', mssql: 'SQL_SERVER', oracle: 'ORACLE',
  sqlite: 'SQLITE', odbc: 'ODBC', file: 'FILE', jdbc: 'JDBC', http: 'API', https: 'API' };
const ENDED = ['COMPLETED', 'INCOMPLETE', 'FAILED', 'CANCELLED'];

export const BASE_URL = (__ENV.BASE_URL || 'http://localhost:8080').replace(/\/+$/, '');
export const API = `${BASE_URL}/api/v1`;
export const THINK_SECONDS = Number(__ENV.THINK_SECONDS || 0.5);
const POLL_SECONDS = Number(__ENV.POLL_SECONDS || 1);
const RUN_SECONDS = Number(__ENV.RUN_SECONDS || 600);

let session = null; // of this virtual user
let extraction = null;

// Ends the test with what is missing.
export function required(name) {
  const value = __ENV[name];
  if (!value) fail(`Set ${name}: k6 run -e ${name}=... (see docs/deployment-guide.md, Load tests).`);
  return value;
}

function parameters(name, kind, token, more) {
  const headers = { 'Content-Type': 'application/json', ...more };
  if (token) headers.Authorization = `Bearer ${token}`;
  return { headers, tags: { name, kind } };
}

// A new session: {token, until}. Access tokens are renewed well before their end, not by all users at once.
export function login() {
  const body = { username: __ENV.USERNAME || 'admin', password: required('PASSWORD') };
  const answer = http.post(`${API}/auth/login`, JSON.stringify(body), parameters('login', 'login', null));
  if (answer.status !== 200) fail(`Nobody can log in at ${API} as ${body.username}: ${answer.status} ${answer.body || answer.error}`);
  const { accessToken, expiresIn } = answer.json();
  return { token: accessToken, until: Date.now() + expiresIn * 1000 * (0.5 + 0.4 * Math.random()) };
}

function token(shared) {
  if (session === null) session = shared;
  if (Date.now() > session.until) session = login();
  return session.token;
}

export function get(shared, path, name) {
  const answer = http.get(`${API}${path}`, parameters(name, 'api', token(shared)));
  check(answer, { [`${name}: 200`]: (got) => got.status === 200 });
  return answer;
}

export function post(shared, path, name, body, expected) {
  const key = `${exec.vu.idInTest}-${exec.vu.iterationInInstance}-${Date.now()}-${Math.random().toString(36).slice(2)}`;
  const answer = http.post(`${API}${path}`, body === null ? null : JSON.stringify(body),
    parameters(name, 'api', token(shared), { 'Idempotency-Key': key }));
  check(answer, { [`${name}: ${expected}`]: (got) => got.status === expected });
  return answer;
}

// The body of a create: SOURCE_ID, or SOURCE_URL with SOURCE_USERNAME and SOURCE_PASSWORD; TABLES (by commas) or QUERY.
export function draft() {
  const body = { name: `load ${exec.vu.idInTest} ${Date.now()}` };
  if (__ENV.SOURCE_ID) {
    body.sourceId = Number(__ENV.SOURCE_ID);
  } else {
    const url = required('SOURCE_URL');
    body.sourceType = __ENV.SOURCE_TYPE || KINDS[url.split(/[:+]/)[0]] || 'JDBC';
    body.connectionConfig = { url };
    if (__ENV.SOURCE_USERNAME) body.connectionConfig.username = __ENV.SOURCE_USERNAME;
    if (__ENV.SOURCE_PASSWORD) body.connectionConfig.password = __ENV.SOURCE_PASSWORD;
  }
  if (__ENV.QUERY) body.extractionQuery = __ENV.QUERY;
  else body.tables = required('TABLES').split(',').map((table) => table.trim());
  return body;
}

// Before any load: the settings suffice and somebody answers. Returns the session that the users begin with.
export function begin({ extracts }) {
  required('PASSWORD');
  if (extracts && !__ENV.SOURCE_ID) required('SOURCE_URL');
  if (extracts && !__ENV.QUERY) required('TABLES');
  const health = http.get(`${BASE_URL}/actuator/health`, { tags: { name: 'health', kind: 'monitor' } });
  if (health.status !== 200) fail(`${BASE_URL}/actuator/health: ${health.status} ${health.error}. Set BASE_URL.`);
  return login();
}

// Create once per user, start, poll to the end, read. `watch` is called while it runs. Returns the state at the end.
export function extract(shared, watch = () => {}) {
  if (extraction === null) {
    const made = post(shared, '/extractions', 'create', draft(), 201);
    if (made.status !== 201) {
      sleep(POLL_SECONDS);
      return `not created: ${made.status} ${made.body}`;
    }
    extraction = made.json('id');
  }
  const started = post(shared, `/extractions/${extraction}/start`, 'start', null, 202);
  if (started.status !== 202) {
    sleep(POLL_SECONDS);
    return `not started: ${started.status} ${started.body}`;
  }
  const last = Date.now() + RUN_SECONDS * 1000;
  let state = 'PENDING';
  while (!ENDED.includes(state) && Date.now() < last) {
    sleep(POLL_SECONDS);
    const answer = get(shared, `/extractions/${extraction}`, 'poll');
    if (answer.status === 200) state = answer.json('status') || answer.json('state');
    if (state === 'RUNNING') watch();
  }
  get(shared, `/extractions/${extraction}/statistics`, 'statistics');
  get(shared, `/extractions/${extraction}/runs`, 'runs');
  check(state, { 'run: COMPLETED': (ended) => ended === 'COMPLETED' });
  return state;
}

// What a user of the console does: the list, one of it, its statistics.
export function browse(shared) {
  const list = get(shared, '/extractions?page=0&size=20', 'list');
  const items = list.status === 200 ? list.json('items') || list.json('content') || [] : [];
  if (items.length) {
    const one = items[Math.floor(Math.random() * items.length)].id;
    get(shared, `/extractions/${one}`, 'get');
    get(shared, `/extractions/${one}/statistics`, 'statistics');
  }
  sleep(THINK_SECONDS * (0.5 + Math.random())); // people do not act in step; users that began at once would, for minutes
}
